// `tinfer chat` in a real pseudo-terminal and in a pipe, with the built-in model.
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ChatPty, chatEnvironment, mainFile, newFolder } from "./chat-pty.ts";

const prompt = ">>> ";
const ctrlC = "\x03";
const ctrlD = "\x04";
const upKey = "\x1b[A";
const summary = /context \d+\/\d+/;
const endless = ["--max-tokens", "100000", "--ignore-eos"];

/** Runs a chat with piped input. */
async function piped(input: string, args: readonly string[] = [], folder = newFolder()) {
  const child = Bun.spawn([process.execPath, mainFile, "chat", ...args], {
    stdin: new Blob([input]),
    stdout: "pipe",
    stderr: "pipe",
    env: chatEnvironment(folder),
    cwd: folder,
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { stdout, stderr, exitCode: await child.exited };
}

function savedChats(folder: string): string[] {
  const chats = join(folder, "tinfer", "chats");
  return existsSync(chats) ? readdirSync(chats).map((name) => join(chats, name)) : [];
}

// Bun has pseudo-terminals on POSIX systems.
const hasPty = typeof Bun.Terminal === "function" && process.platform !== "win32";
if (!hasPty) process.stderr.write("skipped: chat in a terminal (no pseudo-terminal here)\n");

describe.skipIf(!hasPty)("in a terminal", () => {
  test("greets, answers, completes, remembers and leaves", async () => {
    const folder = newFolder();
    const environment = chatEnvironment(folder);
    {
      using pty = new ChatPty(["--temperature", "0"], environment);
      await pty.waitFor("/help");
      await pty.waitFor(prompt);
      pty.type("/he\t");
      await pty.waitFor("/help");
      pty.type("\r");
      await pty.waitFor("/temperature VALUE");
      await pty.waitFor(prompt);
      pty.type("Once upon a time\r");
      expect(await pty.waitFor(summary)).toContain("there was a little");
      await pty.waitFor(prompt);
      pty.type("/contxt\r");
      expect(await pty.waitFor("did you mean /context?")).toContain("there is no command /contxt");
      await pty.waitFor(prompt);
      pty.type("/quit\r");
      expect(await pty.process.exited).toBe(0);
    }
    using pty = new ChatPty([], environment);
    await pty.waitFor("/load takes up the last chat: 2 messages");
    await pty.waitFor(prompt);
    pty.type(upKey + upKey + upKey);
    await pty.waitFor("Once upon a time");
    pty.type(`${ctrlC}/load\r`);
    await pty.waitFor("took up 2 messages");
    await pty.waitFor(prompt);
    pty.type(ctrlD);
    expect(await pty.process.exited).toBe(0);
    expect(savedChats(folder).length).toBe(1);
    expect(statSync(savedChats(folder)[0]!).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, "tinfer", "chat-history.jsonl")).mode & 0o777).toBe(0o600);
  }, 120_000);

  test("Ctrl-C stops an answer, clears a line, and twice leaves", async () => {
    const folder = newFolder();
    using pty = new ChatPty([...endless, "--ctx", "2048"], chatEnvironment(folder));
    await pty.waitFor(prompt);
    pty.type("Once upon\r");
    await pty.waitFor(/\w{3} \w+ \w+/);
    pty.type(ctrlC);
    const shown = await pty.waitFor(summary);
    // Stopped long before the context was full.
    expect(shown).not.toContain("2048/2048");
    await pty.waitFor(prompt);
    pty.type("not sent");
    await pty.waitFor("not sent");
    pty.type(ctrlC);
    await pty.waitFor("Ctrl-C again");
    await pty.waitFor(prompt);
    pty.type("/context\r");
    // The stopped answer is part of the conversation, the cleared line is not.
    const context = await pty.waitFor("free");
    expect(context).toContain("assistant");
    expect(context).not.toContain("not sent");
    await pty.waitFor(prompt);
    pty.type(ctrlC);
    await pty.waitFor("Ctrl-C again");
    pty.type(ctrlC);
    expect(await pty.process.exited).toBe(130);
  }, 120_000);

  test("pasted lines and triple quotes make one message, a long paste is a mark", async () => {
    using pty = new ChatPty(["--max-tokens", "4"], chatEnvironment(newFolder()));
    await pty.waitFor(prompt);
    pty.type("\x1b[200~one red\rtwo blue\x1b[201~");
    await pty.waitFor("two blue");
    pty.type("\r");
    await pty.waitFor(summary);
    await pty.waitFor(prompt);
    pty.type('"""\rthree\r');
    await pty.waitFor("... ");
    pty.type('four"""\r');
    await pty.waitFor(summary);
    await pty.waitFor(prompt);
    const lines = Array.from({ length: 30 }, (_, index) => `line${index}`);
    pty.type(`\x1b[200~${lines.join("\r")}\x1b[201~`);
    await pty.waitFor("[text 1: 30 lines]");
    pty.type("\r");
    await pty.waitFor(summary);
    await pty.waitFor(prompt);
    pty.type("/save saved.json\r");
    await pty.waitFor("saved 6 messages");
    const { messages } = JSON.parse(readFileSync(join(pty.folder, "saved.json"), "utf8"));
    const sent = messages.filter((m: { role: string }) => m.role === "user");
    expect(sent.map((m: { content: string }) => m.content)).toEqual([
      "one red\ntwo blue",
      "three\nfour",
      lines.join("\n"),
    ]);
  }, 120_000);

  test("what is typed during an answer is kept for the next prompt", async () => {
    using pty = new ChatPty(["--max-tokens", "300", "--ignore-eos"], chatEnvironment(newFolder()));
    // Typed before there is a prompt at all.
    pty.type("/set max-tokens 301\r");
    await pty.waitFor("max-tokens is 301");
    await pty.waitFor(prompt);
    pty.type("Once\r");
    pty.type("/set top-k 7\r");
    await pty.waitFor(summary);
    await pty.waitFor("top-k is 7");
  }, 120_000);

  test("Ctrl-C leaves what was entered ahead at the next prompt, not sent", async () => {
    using pty = new ChatPty([...endless, "--ctx", "2048"], chatEnvironment(newFolder()));
    await pty.waitFor(prompt);
    pty.type("Once\r");
    await pty.waitFor(/\w{3} \w+ \w+/);
    pty.type(`/set top-k 7\r${ctrlC}`);
    await pty.waitFor(summary);
    expect(await pty.waitFor(`${prompt}/set top-k 7`)).not.toContain("top-k is 7");
    pty.type("\r");
    await pty.waitFor("top-k is 7");
  }, 60_000);

  test("Ctrl-C while nothing can be stopped says so; the third one ends it, tidily", async () => {
    const program = [join(import.meta.dir, "busy-chat.ts")];
    using pty = new ChatPty([], chatEnvironment(newFolder()), program);
    await pty.waitFor(prompt);
    pty.type("x\r");
    await pty.waitFor("busy");
    pty.type(ctrlC);
    await pty.waitFor("Ctrl-C again leaves");
    pty.type(ctrlC + ctrlC);
    await pty.process.exited;
    expect(pty.process.signalCode).toBe("SIGKILL");
    const [shown, hidden] = ["\x1b[?25h", "\x1b[?25l"].map((code) => pty.raw.lastIndexOf(code));
    expect(shown).toBeGreaterThan(hidden!);
    expect(pty.raw.lastIndexOf("\x1b[?2004l")).toBeGreaterThan(pty.raw.lastIndexOf("\x1b[?2004h"));
  }, 60_000);

  test("SIGTERM, a closed terminal and kill -9 lose no turn", async () => {
    for (const way of ["SIGTERM", "hangUp", "SIGKILL"] as const) {
      const folder = newFolder();
      using pty = new ChatPty(endless, chatEnvironment(folder));
      await pty.waitFor(prompt);
      pty.type("/max-tokens 5\r");
      await pty.waitFor("max-tokens is 5");
      await pty.waitFor(prompt);
      pty.type("Once\r");
      await pty.waitFor(summary);
      await pty.waitFor(prompt);
      pty.type("/max-tokens off\r");
      await pty.waitFor("max-tokens is off");
      await pty.waitFor(prompt);
      pty.type("Then\r");
      await pty.waitFor(/\w{3} \w+ \w+/);
      if (way === "hangUp") pty.hangUp();
      else pty.process.kill(way);
      await pty.process.exited;
      const signal = way === "hangUp" ? "SIGHUP" : way;
      expect(pty.process.signalCode).toBe(signal);
      expect(pty.text).not.toContain("bug in tinfer");
      const saved = JSON.parse(readFileSync(savedChats(folder)[0]!, "utf8"));
      // A kill leaves the message without its answer; the others keep the answer as it stood.
      expect(saved.messages.length).toBe(way === "SIGKILL" ? 3 : 4);
      const { stderr, exitCode } = await piped("", ["--resume"], folder);
      expect(stderr).toContain(`took up ${saved.messages.length} messages`);
      expect(exitCode).toBe(0);
    }
  }, 180_000);

  test("a terminal that closes at the prompt ends it", async () => {
    const pty = new ChatPty([], chatEnvironment(newFolder()));
    await pty.waitFor(prompt);
    pty.hangUp();
    await pty.process.exited;
    expect(pty.process.signalCode).toBe("SIGHUP");
  }, 60_000);

  test("shows no colour where NO_COLOR is set", async () => {
    const environment = { ...chatEnvironment(newFolder()), NO_COLOR: "1" };
    using pty = new ChatPty(["--max-tokens", "3"], environment);
    await pty.waitFor(prompt);
    pty.type("Once\r");
    await pty.waitFor(summary);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are escape sequences.
    expect(pty.raw).not.toMatch(/\x1b\[[0-9;]*m/);
  }, 60_000);
});

describe("in a pipe", () => {
  test("each line is a turn; stdout has the answers alone", async () => {
    const args = ["--temperature", "0", "--max-tokens", "8"];
    const one = await piped("Once upon a time\n", args);
    expect(one.exitCode).toBe(0);
    const folder = newFolder();
    const two = await piped("Once upon a time\n\nThe dog\n/save a.json\n", args, folder);
    expect(two.exitCode).toBe(0);
    expect(two.stdout.startsWith(one.stdout)).toBe(true);
    expect(two.stdout).not.toContain("\x1b");
    expect(two.stdout).not.toContain(prompt);
    expect(two.stdout.length).toBeGreaterThan(one.stdout.length + 8);
    const saved = JSON.parse(readFileSync(join(folder, "a.json"), "utf8"));
    // A script's questions push no person's chat out, and --resume does not take them up.
    expect(savedChats(folder)).toEqual([]);
    expect(saved.messages.map((m: { role: string }) => m.role)).toEqual([
      ...["user", "assistant", "user", "assistant"],
    ]);
    // The raw content: together the answers are exactly what was printed.
    const answers = [saved.messages[1].content, saved.messages[3].content];
    expect(two.stdout).toBe(answers.map((text: string) => `${text}\n`).join(""));
  }, 60_000);

  test("lines may end in CRLF", async () => {
    const folder = newFolder();
    await piped("Once\r\n/save a.json\r\n", ["-n", "2"], folder);
    const { messages } = JSON.parse(readFileSync(join(folder, "a.json"), "utf8"));
    expect(messages[0].content).toBe("Once");
  }, 60_000);

  test("the second turn reuses the first one's prefix", async () => {
    const args = ["--temperature", "0", "--max-tokens", "100", "--ignore-eos"];
    const { stdout } = await piped("Once upon a time\nThen\n/stats\n", args);
    const reused = Number(/reused\s+(\d+) tokens/.exec(stdout)?.[1]);
    // 104 tokens of history: all its full blocks of 32.
    expect(reused).toBeGreaterThanOrEqual(64);
  }, 60_000);

  test("a failed line is said, the others are answered, and the exit code tells", async () => {
    const args = ["--ctx", "64", "--max-tokens", "4"];
    const long = "word ".repeat(100);
    const { stdout, stderr, exitCode } = await piped(`${long}\nOnce\n`, args);
    expect(stderr).toMatch(/the conversation has \d+ tokens; the context holds 64/);
    expect(stdout.trim()).not.toBe("");
    expect(exitCode).toBe(1);
  }, 60_000);

  test("save and load keep messages and settings; other files are safe", async () => {
    const folder = newFolder();
    writeFileSync(join(folder, "mine.json"), '{"mine": true}');
    const saving = await piped("/top-k 7\nOnce\n/save a.json\n/save a.json\n", ["-n", "4"], folder);
    expect(saving.exitCode).toBe(0);
    const loading = await piped("/load a.json\n/set top-k\n/save mine.json\n", [], folder);
    expect(loading.stderr).toContain("took up 2 messages");
    expect(loading.stderr).toContain("top-k is 7");
    expect(loading.stderr).toContain("mine.json exists and is not a tinfer chat");
    expect(loading.exitCode).toBe(2);
    expect(readFileSync(join(folder, "mine.json"), "utf8")).toBe('{"mine": true}');
  }, 60_000);

  test("a reader that leaves ends it quietly", async () => {
    const environment = chatEnvironment(newFolder());
    const command = `${process.execPath} ${mainFile} chat --max-tokens 300 --ignore-eos | head -c 5`;
    const child = Bun.spawn(["sh", "-c", `printf 'Once\\nThen\\n' | ${command}`], {
      env: environment,
      stdout: "pipe",
      stderr: "pipe",
    });
    expect((await child.stdout.text()).length).toBe(5);
    expect(await child.stderr.text()).not.toMatch(/error|bug/i);
  }, 60_000);

  test("SIGINT during an answer ends it with the signal", async () => {
    const child = Bun.spawn([process.execPath, mainFile, "chat", ...endless, "--ctx", "2048"], {
      stdin: new Blob(["Once\n"]),
      stdout: "pipe",
      stderr: "pipe",
      env: chatEnvironment(newFolder()),
    });
    const reader = child.stdout.getReader();
    await reader.read();
    child.kill("SIGINT");
    await child.exited;
    expect(child.signalCode).toBe("SIGINT");
    expect(await child.stderr.text()).not.toMatch(/ {4}at /);
  }, 60_000);

  test("nothing is kept with --no-history, and there may be nothing to resume", async () => {
    const folder = newFolder();
    expect((await piped("Once\n", ["-n", "2", "--no-history"], folder)).exitCode).toBe(0);
    expect(savedChats(folder)).toEqual([]);
    const { stderr, exitCode } = await piped("", ["--resume"], folder);
    expect(stderr).toContain("there is no chat to resume");
    expect(exitCode).toBe(1);
  }, 60_000);
});
