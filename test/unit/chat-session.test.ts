// The conversation and its commands, on a model of letters.
import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FoundChat } from "../../src/chat/autosave.ts";
import { Autosave } from "../../src/chat/autosave.ts";
import { TinferError } from "../../src/core/errors.ts";
import { bracketTemplate, type FakeChat, fakeChat, fakeModel } from "./chat-fakes.ts";

/** The conversation in short: "u:hi a:ok". */
function transcript({ chat }: FakeChat): string {
  return chat.session.messages.map(({ role, content }) => `${role[0]}:${content}`).join(" ");
}

/** The prompt of the n-th request, as text. */
function promptOf({ model }: FakeChat, index: number): string {
  return String.fromCodePoint(...model.requests[index]!.promptTokenIds);
}

test("each turn's prompt begins with the one before and its raw answer", async () => {
  const fake = fakeChat(["hi", "and?", "more"], { answers: ["  Yes \n", "No", "!"] });
  await fake.chat.run();
  expect(transcript(fake)).toBe("u:hi a:  Yes \n u:and? a:No u:more a:!");
  expect(promptOf(fake, 0)).toBe("[user:hi][assistant:");
  expect(promptOf(fake, 1)).toBe("[user:hi][assistant:  Yes \n][user:and?][assistant:");
  expect(promptOf(fake, 2).startsWith(`${promptOf(fake, 1)}No`)).toBe(true);
});

test("undo, retry and clear", async () => {
  const fake = fakeChat(["a", "b", "/undo", "c", "/retry"], { answers: ["1", "2", "3", "4"] });
  await fake.chat.run();
  expect(transcript(fake)).toBe("u:a a:1 u:c a:4");
  expect(promptOf(fake, 3)).toBe(promptOf(fake, 2));
  const cleared = fakeChat(["a", "/clear", "/undo", "/retry", "b"], {});
  await cleared.chat.run();
  expect(transcript(cleared)).toBe("u:b a:ok");
  expect(cleared.terminal.errors.map(({ message }) => message)).toEqual([
    "there is no message to take back",
    "there is no message to answer again",
  ]);
});

test("a message that does not fit changes nothing and the numbers are exact", async () => {
  const fake = fakeChat(["12345", "x".repeat(30), "/undo", "y".repeat(27)], { maxContextLen: 50 });
  await fake.chat.run();
  // [user:12345][assistant:ok] = 26 and, with the next opening, 37.
  const [first, second] = fake.terminal.errors as TinferError[];
  expect(first?.code).toBe("contextOverflow");
  expect(first?.message).toContain(
    "74 tokens (37 so far, 37 for this message); the context holds 50",
  );
  expect(first?.message).toContain("the model was trained for 100 tokens");
  expect(first?.hint).toContain("/undo");
  expect(first?.hint).toContain("--ctx 75");
  expect(second).toBeUndefined();
  expect(transcript(fake)).toBe(`u:${"y".repeat(27)} a:ok`);
});

test("a first message that is too long is not blamed on the conversation", async () => {
  const fake = fakeChat(["x".repeat(60)], { maxContextLen: 50 });
  await fake.chat.run();
  const [error] = fake.terminal.errors as TinferError[];
  expect(error?.message).toContain("the conversation has 78 tokens; the context holds 50");
  expect(error?.hint).not.toContain("/undo");
  expect(transcript(fake)).toBe("");
});

test("a stopped answer stays as far as it came; one without a word takes the message back", async () => {
  const fake = fakeChat(["hi"], { answers: ["long answer"] });
  fake.terminal.stopAfter = 4;
  await fake.chat.run();
  expect(transcript(fake)).toBe("u:hi a:long");
  const early = fakeChat(["hi"], { answers: ["never"] });
  early.terminal.stopAfter = 0;
  await early.chat.run();
  expect(transcript(early)).toBe("");
  expect(early.terminal.notes.join()).toContain("taken back");
});

test("a retry that is stopped at once keeps the earlier answer", async () => {
  const fake = fakeChat(["hi", "/retry"], { answers: ["first", "second"] });
  const { stoppable } = fake.terminal;
  let numAnswers = 0;
  fake.terminal.stoppable = (work) => {
    if (++numAnswers === 2) fake.terminal.stopAfter = 0;
    return stoppable.call(fake.terminal, work) as ReturnType<typeof work>;
  };
  await fake.chat.run();
  expect(transcript(fake)).toBe("u:hi a:first");
  expect(fake.terminal.notes.join()).toContain("the earlier answer stays");
});

test("an engine that fails in the middle leaves what was said", async () => {
  const fake = fakeChat(["hi", "again"]);
  const failing = {
    ...fake.model.engine,
    async *generate() {
      yield { kind: "token", tokenId: 65, logprob: 0, top: [] } as const;
      throw new TinferError("native", "the kernel failed");
    },
  };
  Object.assign(fake.model, { engine: failing });
  await fake.chat.run();
  expect(transcript(fake)).toBe("u:hi a:A u:again a:A");
  expect(fake.terminal.errors.length).toBe(2);
});

test("settings reach the request and the prompt", async () => {
  const inputs = [
    "/set TOP_K 7",
    "/temperature 0",
    "/seed 9",
    "/max-tokens 2",
    "/system Be brief.",
  ];
  const fake = fakeChat([...inputs, "hi", "/set top-k default", "/seed off", "/system off", "yo"], {
    answers: ["abcdef"],
  });
  await fake.chat.run();
  expect(fake.terminal.errors).toEqual([]);
  expect(fake.model.requests[0]?.sampling).toMatchObject({ topK: 7, temperature: 0, seed: 9 });
  expect(fake.model.requests[0]?.maxTokens).toBe(2);
  expect(promptOf(fake, 0)).toBe("[system:Be brief.][user:hi][assistant:");
  expect(fake.model.requests[1]?.sampling).toMatchObject({ topK: 40, seed: undefined });
  expect(promptOf(fake, 1)).toBe("[user:hi][assistant:ab][user:yo][assistant:");
});

test("bad values and unknown settings change nothing", async () => {
  const inputs = [
    "/top-p 2",
    "/top-k x",
    "/max-tokens 0",
    "/set tempreature 1",
    "/set ignore-eos maybe",
  ];
  const fake = fakeChat(inputs);
  const before = fake.chat.session.settings;
  await fake.chat.run();
  expect(fake.terminal.errors.length).toBe(inputs.length);
  expect((fake.terminal.errors[3] as TinferError).hint).toBe("did you mean temperature?");
  expect(fake.chat.session.settings).toEqual(before);
});

test("a system message that the template refuses is not taken", async () => {
  const template =
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}" +
    "{% endif %}{{ m.content }}{% endfor %}";
  const fake = fakeChat(["/system Be brief.", "hi"], { template });
  await fake.chat.run();
  expect(fake.terminal.errors[0]?.message).toContain("no system");
  expect(transcript(fake)).toBe("u:hi a:ok");
});

test("thinking: switched through the template, kept apart from the answer", async () => {
  const template =
    "{% if enable_thinking is defined and not enable_thinking %}(quiet){% endif %}" +
    `${bracketTemplate}{# <think> </think> #}`;
  const fake = fakeChat(["a", "/thinking off", "b"], {
    template,
    answers: ["<think>hm</think>Yes", "No"],
  });
  await fake.chat.run();
  expect(fake.chat.session.messages[1]).toEqual({
    ...{ role: "assistant", content: "Yes", reasoning_content: "hm" },
  });
  expect(promptOf(fake, 0)).not.toContain("(quiet)");
  expect(promptOf(fake, 1)).toBe("(quiet)[user:a][assistant:Yes][user:b][assistant:");
  const without = fakeChat(["/thinking on"]);
  await without.chat.run();
  expect(without.terminal.errors[0]?.message).toContain("no switch for thinking");
});

test("/template renders anew, and a wrong one changes nothing", async () => {
  const fake = fakeChat(["hi", "/template {{ broken", "/template {{ messages|length }}", "yo"]);
  await fake.chat.run();
  expect(fake.terminal.errors.length).toBe(1);
  expect(promptOf(fake, 1)).toBe("3");
});

test("/model keeps the conversation, and the old model where the new one fails", async () => {
  const second = fakeModel("second", 45, bracketTemplate.replaceAll("[", "<"));
  const untemplated = fakeModel("third", 40, "");
  const host = {
    loadModel(argument: string) {
      if (argument === "second") return Promise.resolve(second);
      if (argument === "third") return Promise.resolve(untemplated);
      return Promise.reject(new TinferError("notFound", `no such file: ${argument}`));
    },
  };
  const inputs = ["hi", "/model none", "/model third", "yo", "/model second", "/undo", "x"];
  const fake = fakeChat(inputs, { host });
  await fake.chat.run();
  expect(fake.terminal.errors.map(({ message }) => message)).toEqual([
    "no such file: none",
    "the model has no chat template",
  ]);
  expect(untemplated.isDisposed).toBe(true);
  expect(fake.model.requests.length).toBe(2);
  expect(fake.model.isDisposed).toBe(true);
  // Two turns are 51 characters in the new model's 45: said with the numbers.
  expect(fake.terminal.notes.join("\n")).toMatch(/now 5\d tokens and the context holds 45/);
  expect(String.fromCodePoint(...second.requests[0]!.promptTokenIds)).toBe(
    "<user:hi]<assistant:ok]<user:x]<assistant:",
  );
});

test("Ctrl-C during /model keeps the old model, and the chat goes on", async () => {
  const loadModel = (_: string, signal: AbortSignal) =>
    new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(new TinferError("cancelled", "interrupted")));
      fake.terminal.interrupt();
    });
  const fake = fakeChat(["/model second", "hi"], { host: { loadModel } });
  await fake.chat.run();
  expect(fake.terminal.notes).toEqual(["stopped; the model is still first"]);
  expect(fake.terminal.errors).toEqual([]);
  expect(transcript(fake)).toBe("u:hi a:ok");
});

test("/context adds up", async () => {
  const fake = fakeChat(["/system S", "hello", "/context"], { maxContextLen: 100 });
  await fake.chat.run();
  const use = fake.chat.session.contextUse();
  expect(use.messages.map(({ role, tokens }) => [role, tokens])).toEqual([
    ["system", 1],
    ["user", 5],
    ["assistant", 2],
  ]);
  const sum = use.messages.reduce((total, { tokens }) => total + tokens, 0);
  expect(sum + use.templateTokens).toBe(use.promptTokens);
  expect(fake.terminal.output[0]).toContain(`${100 - use.promptTokens}  free`);
});

test("turns are saved as they end, and the last chat can be taken up", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-autosave-"));
  const latest = (): FoundChat => new Autosave(folder).latest()!;
  const autosave = new Autosave(folder);
  const fake = fakeChat(["hi", "/top-k 3", "there", "/clear", "new"], { autosave });
  await fake.chat.run();
  expect(latest().chat.messages.length).toBe(2);
  expect(latest().chat.settings.sampling.topK).toBe(3);
  // The cleared chat is a file of its own.
  const other = fakeChat(["/load", "go on"], { autosave: new Autosave(folder) });
  await other.chat.run();
  expect(transcript(other)).toBe("u:new a:ok u:go on a:ok");
  expect(latest().chat.messages.length).toBe(4);
});

test("a message is saved before its answer, and one that is taken back in the file too", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-autosave-"));
  const saved = () => new Autosave(folder).latest()?.chat.messages.map(({ content }) => content);
  const fake = fakeChat([], { autosave: new Autosave(folder) });
  const seen: unknown[] = [];
  const { stoppable } = fake.terminal;
  fake.terminal.stoppable = (work) => {
    seen.push(saved());
    return stoppable.call(fake.terminal, work) as ReturnType<typeof work>;
  };
  fake.terminal.stopAfter = 0;
  await fake.chat.send("never");
  expect(saved()).toBeUndefined();
  fake.terminal.stopAfter = Number.POSITIVE_INFINITY;
  await fake.chat.send("hi");
  fake.terminal.stopAfter = 0;
  await fake.chat.send("no");
  expect(seen).toEqual([["never"], ["hi"], ["hi", "ok", "no"]]);
  expect(saved()).toEqual(["hi", "ok"]);
  expect(readdirSync(join(folder, "chats")).length).toBe(1);
});

test("two chats that took up one file do not overwrite each other", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-autosave-"));
  const first = fakeChat(["hi"], { autosave: new Autosave(folder) });
  await first.chat.run();
  const second = fakeChat(["/load", "from the second"], { autosave: new Autosave(folder) });
  await second.chat.run();
  await first.chat.send("from the first");
  await first.chat.send("again");
  const told = first.terminal.notes.filter((note) => note.includes("another tinfer"));
  expect(told.length).toBe(1);
  const files = new Autosave(folder);
  const newest = files.latest()!;
  files.continueAt(newest);
  const other = files.latest()!;
  expect(newest.chat.messages).toEqual(first.chat.session.messages);
  expect(other.chat.messages).toEqual(second.chat.session.messages);
});

test("a chat in a pipe saves only what it took up", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-autosave-"));
  const piped = () => new Autosave(folder, { startsFiles: false });
  await fakeChat(["hi"], { autosave: piped() }).chat.run();
  expect(piped().latest()).toBeUndefined();
  await fakeChat(["hi"], { autosave: new Autosave(folder) }).chat.run();
  await fakeChat(["/load", "more"], { autosave: piped() }).chat.run();
  expect(piped().latest()?.chat.messages.length).toBe(4);
});
