// `tinfer run` on the built-in model: fixed form, determinism, prompts from everywhere, stops.
import { expect, setDefaultTimeout, test } from "bun:test";
import { tinfer, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

interface Answer {
  text: string;
  promptTokenIds: number[];
  completionTokenIds: number[];
  finishReason: string;
  usage: { promptTokens: number; completionTokens: number; totalTokens: number };
  timings: Record<string, number>;
}

/** MODEL "" is the built-in one. */
const greedy = ["run", "", "Once upon a time", "--raw", "--temperature", "0", "--max-tokens", "24"];
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
    tinferJson<Answer>(["run", "", "One day", "--raw", "--max-tokens", "40", "--seed", seed]);
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
    tinferJson<Answer>(["run", "", "Once", ...flags], { stdin: "upon a time\n" }),
    tinferJson<Answer>(["run", "", ...flags], { stdin: "Once\nupon a time" }),
    tinferJson<Answer>(["run", "", "Once\nupon a time", ...flags]),
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
    tinfer(["run", "", "x", "--raw", "--max-tokens", "0"]),
  ]);
  expect(overflow).toMatchObject({ stdout: "", exitCode: 1 });
  expect(overflow.stderr).toContain("300 tokens, the context 256");
  expect(outside).toMatchObject({ stdout: "", exitCode: 2 });
  expect(outside.stderr).toContain("512 is outside the vocabulary");
  expect(bias).toMatchObject({ stdout: "", exitCode: 2 });
  expect(empty).toMatchObject({ stdout: "", exitCode: 2 });
});
