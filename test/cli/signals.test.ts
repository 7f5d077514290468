// Closed pipes and Ctrl-C: the program ends at once, quietly or with 130, and says what it had.
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cleanEnvironment, start, storyModel, tinfer, tinferCommand } from "./spawn.ts";

setDefaultTimeout(60_000);

/** Slow on purpose: the reference backend, and no end but the context's. */
const endless = [
  ...["run", storyModel, "Once", "--raw", "--ignore-eos"],
  ...["--max-tokens", "2000", "--backend", "reference"],
];

async function shell(command: string): Promise<{ stdout: string; stderr: string }> {
  const program = tinferCommand()
    .map((part) => `'${part}'`)
    .join(" ");
  const child = Bun.spawn(["bash", "-c", command.replaceAll("TINFER", program)], {
    env: cleanEnvironment(),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { stdout, stderr };
}

test("a reader that leaves ends the program quietly with success", async () => {
  const status = `; echo "status \${PIPESTATUS[0]}"`;
  const [text, rows] = await Promise.all([
    shell(`TINFER ${endless.map((arg) => `'${arg}'`).join(" ")} | head -c 3${status}`),
    shell(`yes '"word word word"' | head -50000 | TINFER tokenize --json-lines | head -1; \
echo "status \${PIPESTATUS[2]}"`),
  ]);
  expect(text).toEqual({ stdout: expect.stringMatching(/^.{3}status 0\n$/s), stderr: "" });
  expect(rows).toEqual({ stdout: expect.stringMatching(/^\[1,[\d,]+\]\nstatus 0\n$/), stderr: "" });
});

/** Reads until something has come, then sends the signal; all output and the exit code. */
async function interruptAfterOutput(args: readonly string[]) {
  const child = start(args);
  let stdout = "";
  const decoder = new TextDecoder();
  for await (const bytes of child.stdout) {
    if (stdout === "") child.kill("SIGINT");
    stdout += decoder.decode(bytes, { stream: true });
  }
  const stderr = await new Response(child.stderr).text();
  return { stdout, stderr, exitCode: await child.exited };
}

test("Ctrl-C during an answer keeps what was said and ends with 130", async () => {
  const { stdout, stderr, exitCode } = await interruptAfterOutput(endless);
  expect(exitCode).toBe(130);
  expect(stdout.length).toBeGreaterThan(0);
  expect(stdout.endsWith("\n")).toBe(true);
  expect(stderr).toContain("interrupted");
  expect(stderr).not.toMatch(/\n\s+at /);
});

/** Starts, waits `delayMs`, interrupts. */
async function interruptAfter(
  delayMs: number,
  args: readonly string[],
  signal: NodeJS.Signals = "SIGINT",
) {
  const child = start(args);
  await Bun.sleep(delayMs);
  child.kill(signal);
  const begin = performance.now();
  const [stdout, exitCode] = [new Response(child.stdout).text(), await child.exited];
  return { stdout: await stdout, exitCode, ms: performance.now() - begin };
}

test("Ctrl-C with --json still prints the document", async () => {
  const { stdout, exitCode } = await interruptAfter(1500, [...endless, "--json"]);
  expect(exitCode).toBe(130);
  const answer = JSON.parse(stdout) as { finishReason: string; completionTokenIds: number[] };
  expect(answer.finishReason).toBe("cancelled");
  expect(answer.completionTokenIds.length).toBeGreaterThan(0);
});

test("Ctrl-C at any time ends with 130", async () => {
  // Before the first line of ours, while loading, during the prompt: the system's or our own way.
  const prompt = Array.from({ length: 1500 }, () => "403").join(",");
  const long = ["run", "--prompt-token-ids", prompt, "--backend", "reference"];
  const delays = [30, 150, 300, 600];
  const results = await Promise.all(delays.map((delay) => interruptAfter(delay, long)));
  for (const { exitCode } of results) expect(exitCode).toBe(130);
});

test("termination ends with 143, in work that yields and in work that does not", async () => {
  const busy = ["bench", storyModel, "-p", "512", "-n", "0", "-r", "1000000"];
  const results = await Promise.all(
    [endless, busy].map((args) => interruptAfter(1500, args, "SIGTERM")),
  );
  expect(results.map(({ exitCode }) => exitCode)).toEqual([143, 143]);
});

test("Ctrl-C ends bench, logits and perplexity with 130 and a word, in a step and between steps", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-signals-"));
  using _ = { [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
  const ids = Array.from({ length: 2000 }, (_, i) => String(400 + (i % 50))).join(",");
  const logits = join(folder, "logits.f32");
  writeFileSync(logits, "of an earlier run");
  const text = join(folder, "text.txt");
  writeFileSync(text, "Once upon a time, there was a little girl. ".repeat(4000));
  const save = ["--save-logits", join(folder, "saved.kld"), "--backend", "reference"];
  const output = ["--output", logits];
  const commands = [
    ["bench", storyModel, "-p", "512", "-n", "0", "-r", "1000000"],
    ["bench", "--shape", "llama-3.2-1b", "--type", "q8_0"],
    ["logits", storyModel, "--token-ids", ids, "--chunk", "1", "--backend", "reference", ...output],
    ["perplexity", text, ...save],
  ];
  const ends = await Promise.all(
    commands.map(async (args) => {
      const child = start(args, { env: { TMPDIR: folder } });
      await Bun.sleep(2500);
      child.kill("SIGINT");
      const stderr = await new Response(child.stderr).text();
      return { exitCode: await child.exited, stderr };
    }),
  );
  for (const { exitCode, stderr } of ends) {
    expect(exitCode).toBe(130);
    expect(stderr).toContain("interrupted");
    expect(stderr).not.toMatch(/\n\s+at /);
  }
  // The random model of the shape is gone too, and the file of an earlier run is still whole.
  expect(readdirSync(folder).toSorted()).toEqual(["logits.f32", "text.txt"]);
  expect(readFileSync(logits, "utf8")).toBe("of an earlier run");
});

test("Ctrl-C while waiting for stdin ends with 130", async () => {
  const child = Bun.spawn([...tinferCommand(), "run", "--raw"], {
    env: cleanEnvironment(),
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
  await Bun.sleep(1000);
  child.kill("SIGINT");
  expect(await child.exited).toBe(130);
});

test("a program without terminal or input still answers", async () => {
  const { stdout, stderr, exitCode } = await tinfer(["run", "--max-tokens", "2"], { stdin: "" });
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(stdout.endsWith("\n")).toBe(true);
});
