// `tinfer perplexity` as a person uses it, on the built-in model.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PerplexityResult } from "../../src/engine/perplexity.ts";
import { root, tinfer, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

const builtIn = join(root, "assets", "stories260K.gguf");
const story =
  "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " +
  "One day, she saw a big red ball. She wanted to play with it, but it was too high. ";
let folder: string;
let text: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-perplexity-"));
  text = join(folder, "story.txt");
  writeFileSync(text, story.repeat(6));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a story is predicted well, noise badly; one argument is a text for the built-in model", async () => {
  const noise = join(folder, "noise.txt");
  writeFileSync(noise, Array.from({ length: 900 }, (_, i) => (i * 7919) % 97).join(" x"));
  const [told, piped, noisy] = await Promise.all([
    tinferJson<PerplexityResult>(["perplexity", text, "--ctx", "128"]),
    tinferJson<PerplexityResult>(["perplexity", "-", "--ctx", "128"], { stdin: story.repeat(6) }),
    tinferJson<PerplexityResult>(["perplexity", builtIn, noise, "--ctx", "128", "--chunks", "1"]),
  ]);
  expect(told.perplexity.value).toBeLessThan(8);
  expect(piped).toEqual(told);
  expect(noisy.perplexity.value).toBeGreaterThan(50);
  expect(noisy).toMatchObject({ numChunks: 1, chunkLen: 128, numScored: 63 });
});

test("what quantisation costs: saved logits as a base, the base's own text", async () => {
  const [base, q4] = [join(folder, "base.kld"), join(folder, "q4.gguf")];
  const save = ["perplexity", builtIn, text, "--ctx", "128", "--save-logits", base];
  const plain = await tinferJson<PerplexityResult>(save);
  await tinferJson(["quantize", builtIn, q4, "q4_0"]);
  const compared = await tinferJson<PerplexityResult>(["perplexity", q4, "--kl-base", base]);
  expect(compared.numScored).toBe(plain.numScored);
  const { divergence } = compared;
  expect(divergence!.basePerplexity.value).toBeCloseTo(plain.perplexity.value, 4);
  expect(divergence!.mean.value).toBeGreaterThan(0.001);
  expect(divergence!.mean.value).toBeLessThan(0.3);
  const shown = await tinfer(["perplexity", q4, text, "--kl-base", base]);
  expect(shown.stdout).toContain("KL divergence, mean");
  const other = join(folder, "other.txt");
  writeFileSync(other, `Another text. ${story.repeat(6)}`);
  const refused = await tinfer(["perplexity", q4, other, "--kl-base", base]);
  expect(refused.exitCode).toBe(2);
  expect(refused.stderr).toContain("another text");
});

test("short texts, missing ones and strange counts are refused with a hint", async () => {
  const short = join(folder, "short.txt");
  writeFileSync(short, "Hi.");
  const [few, none, only, absent, count] = await Promise.all([
    tinfer(["perplexity", builtIn, short]),
    tinfer(["perplexity"]),
    tinfer(["perplexity", builtIn]),
    tinfer(["perplexity", builtIn, join(folder, "absent.txt")]),
    tinfer(["perplexity", builtIn, text, "--chunks", "0"]),
  ]);
  expect(few.stderr).toContain("smaller --ctx");
  expect(none.stderr).toContain("FILE is missing");
  expect(only).toMatchObject({ stdout: "", exitCode: 2 });
  expect(only.stderr).toContain("FILE is missing: ");
  expect(absent.stderr).toContain(": there is no such file");
  expect(count.stderr).toContain("--chunks is 0");
});
