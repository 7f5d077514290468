// `tinfer run` on the built-in model: fixed form, determinism, prompts from everywhere, stops.
import { expect, setDefaultTimeout, test } from "bun:test";
import { summaryLine } from "../../src/cli/answer.ts";
import type { LoadedModelFacts } from "../../src/engine/client.ts";
import type { GenerationEnd } from "../../src/engine/text-generation.ts";
import { storyModel, tinfer, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

interface Answer {
  text: string;
  promptTokenIds: number[];
  completionTokenIds: number[];
  finishReason: string;
  usage: { promptTokens: number; completionTokens: number; totalTokens: number };
  timings: Record<string, number>;
}

const greedy = [
  "run",
  storyModel,
  "Once upon a time",
  "--raw",
  "--temperature",
  "0",
  "--max-tokens",
  "24",
];
const story = ", there was a little girl named Lily. She loved to play outside in the p";

test("greedy answers are the same every time, on both backends, with any thread count", async () => {
  const runs = await Promise.all([
    tinferJson<Answer>(greedy),
    tinferJson<Answer>([...greedy, "--seed", "7", "--threads", "1"]),
    tinferJson<Answer>([...greedy, "--backend", "reference"]),
  ]);
  for (const { text, finishReason, completionTokenIds } of runs) {
    expect({ text, finishReason }).toEqual({ text: story, finishReason: "length" });
    expect(completionTokenIds).toEqual(runs[0]!.completionTokenIds);
  }
  const { usage, timings, promptTokenIds, completionTokenIds } = runs[0]!;
  expect(promptTokenIds).toEqual([1, 403, 407, 261, 378]);
  expect(completionTokenIds.length).toBe(24);
  expect(usage).toMatchObject({ promptTokens: 5, completionTokens: 24, totalTokens: 29 });
  for (const time of Object.values(timings)) expect(time).toBeGreaterThanOrEqual(0);
});

test("a seed makes sampling reproducible, another one differs", async () => {
  const sample = (seed: string) =>
    tinferJson<Answer>([
      "run",
      storyModel,
      "One day",
      "--raw",
      "--max-tokens",
      "40",
      "--seed",
      seed,
    ]);
  const [first, again, other] = await Promise.all([sample("42"), sample("42"), sample("43")]);
  expect(again.completionTokenIds).toEqual(first.completionTokenIds);
  expect(other.completionTokenIds).not.toEqual(first.completionTokenIds);
});

test("text mode writes the answer alone; no prompt at all gives a story", async () => {
  const [text, silent] = await Promise.all([
    tinfer(greedy),
    tinfer(["run", "--temperature", "0", "--max-tokens", "24"]),
  ]);
  expect(text).toEqual({ stdout: `${story}\n`, stderr: "", exitCode: 0 });
  // A story that nobody began is shown from its beginning.
  expect(silent).toEqual({ ...text, stdout: `Once upon a time${text.stdout}` });
});

test("piped text is appended to the prompt, or is the prompt", async () => {
  const flags = ["--raw", "--temperature", "0", "--max-tokens", "1"];
  const [both, piped, given] = await Promise.all([
    tinferJson<Answer>(["run", storyModel, "Once", ...flags], { stdin: "upon a time\n" }),
    tinferJson<Answer>(["run", storyModel, ...flags], { stdin: "Once\nupon a time" }),
    tinferJson<Answer>(["run", storyModel, "Once\nupon a time", ...flags]),
  ]);
  expect(both.promptTokenIds).toEqual(given.promptTokenIds);
  expect(piped.promptTokenIds).toEqual(given.promptTokenIds);
});

test("--prompt-token-ids replaces the prompt", async () => {
  const ids = ["--prompt-token-ids", "1,403,407,261,378"];
  const flags = ["--temperature", "0", "--max-tokens", "24"];
  const answer = await tinferJson<Answer>(["run", ...ids, ...flags]);
  expect(answer.promptTokenIds).toEqual([1, 403, 407, 261, 378]);
  expect(answer.text).toBe(story);
});

test("what a flag would be ignored for is refused, empty names and items too", async () => {
  const refused = [
    [["--raw", "--system", "x"], "--system changes nothing: --raw"],
    [["--prompt-token-ids", "1", "--template", "x"], "--prompt-token-ids goes without"],
    [["Once", "--prompt-token-ids", "1"], "drop 'Once'"],
    [["--prompt-token-ids", "1,,2"], "'' is not a token id"],
  ] as const;
  const own = tinfer(["run", "--system", "x"]);
  const empty = tinfer(["show", ""]);
  for (const [args, text] of refused) {
    const { stdout, stderr, exitCode } = await tinfer(["run", storyModel, ...args]);
    expect({ args, stdout, exitCode }).toEqual({ args, stdout: "", exitCode: 2 });
    expect(stderr).toContain(text);
  }
  expect((await own).stderr).toContain("the built-in model has no chat template");
  expect(await empty).toMatchObject({ stdout: "", exitCode: 2 });
  // What the environment says is for all commands and models.
  const flags = ["--raw", "--max-tokens", "1"];
  const ambient = await tinfer(["run", ...flags], { env: { TINFER_SYSTEM: "x" } });
  expect(ambient.exitCode).toBe(0);
});

test("a context that cuts the answer is named without a terminal too", async () => {
  const flags = ["--raw", "--ctx", "8", "--temperature", "0"];
  const { stdout, stderr, exitCode } = await tinfer(["run", storyModel, "Once", ...flags]);
  expect({ stdout: stdout !== "", exitCode }).toEqual({ stdout: true, exitCode: 0 });
  expect(stderr).toBe("stopped: the context is full (--ctx)\n");
  expect((await tinfer(["run", storyModel, "Once", ...flags, "--json"])).stderr).toBe(stderr);
});

test("a model without a chat template: --raw is the way", async () => {
  const { stderr, exitCode } = await tinfer(["run", storyModel, "Once"]);
  expect(exitCode).toBe(1);
  expect(stderr).toContain("no chat template");
  expect(stderr).toContain("--raw");
});

test("the summary of an answer that ended in its prompt has no speeds", () => {
  const end = {
    ...{ kind: "end", finishReason: "cancelled", stopString: undefined, contextFull: false },
    ...{ promptTokens: 8009, cachedTokens: 0, completionTokens: 0 },
    timings: { queueMs: 0, promptMs: 1854, ttftMs: 0, generateMs: 0 },
  } as unknown as GenerationEnd;
  const facts = { maxContextLen: 8192 } as LoadedModelFacts;
  expect(summaryLine(end, facts)).toBe("stopped while reading the prompt of 8009 tokens");
});

test("stop strings end the text before them, also across tokens", async () => {
  const stopped = await tinferJson<Answer>([...greedy, "--stop", "zebra", "--stop", "irl named"]);
  expect(stopped.text).toBe(", there was a little g");
  expect(stopped.finishReason).toBe("stop");
});

test("logit bias: -inf bans a token, a large one forces it", async () => {
  const [free, banned, forced] = await Promise.all([
    tinferJson<Answer>(greedy),
    tinferJson<Answer>([...greedy, "--logit-bias", "432=-inf"]),
    tinferJson<Answer>([...greedy, "--logit-bias", "300=1000", "--max-tokens", "3"]),
  ]);
  expect(free.completionTokenIds).toContain(432);
  expect(banned.completionTokenIds).not.toContain(432);
  expect(forced.completionTokenIds).toEqual([300, 300, 300]);
});

test("what cannot be asked for is refused with the reason", async () => {
  const long = Array.from({ length: 300 }, () => "403").join(",");
  const [overflow, outside, bias, empty] = await Promise.all([
    tinfer(["run", "--prompt-token-ids", long, "--ctx", "256"]),
    tinfer(["run", "--prompt-token-ids", "1,512"]),
    tinfer([...greedy, "--logit-bias", "13"]),
    tinfer(["run", storyModel, "x", "--raw", "--max-tokens", "0"]),
  ]);
  expect(overflow).toMatchObject({ stdout: "", exitCode: 1 });
  expect(overflow.stderr).toContain("300 tokens, the context 256");
  expect(outside).toMatchObject({ stdout: "", exitCode: 2 });
  expect(outside.stderr).toContain("512 is outside the vocabulary");
  expect(bias).toMatchObject({ stdout: "", exitCode: 2 });
  expect(empty).toMatchObject({ stdout: "", exitCode: 2 });
});
