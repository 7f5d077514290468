// `tinfer imatrix`: what it writes serves `tinfer quantize`, and makes few bits better.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PerplexityResult } from "../../src/engine/perplexity.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { root, tinfer, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

const builtIn = join(root, "assets", "stories260K.gguf");
const story =
  "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " +
  "One day, she saw a big red ball. She wanted to play with it, but it was too high. ";
let folder: string;
const at = (name: string) => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-imatrix-"));
  writeFileSync(at("story.txt"), story.repeat(8));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a measured importance matrix brings the quantised model nearer to the original", async () => {
  const measure = ["imatrix", builtIn, at("story.txt"), "-o", at("imatrix.gguf"), "--ctx", "128"];
  const result = await tinferJson<{ entries: number; numTokens: number }>(measure);
  const file = readGguf(at("imatrix.gguf"));
  expect(file.tensors.size).toBe(2 * result.entries);
  expect(file.tensors.get("blk.0.attn_q.weight.counts")!.shape).toEqual([1, 1]);
  expect(file.metadata.get("imatrix.chunk_size")).toBe(128);
  const score = ["perplexity", builtIn, at("story.txt"), "--ctx", "128"];
  await tinferJson([...score, "--save-logits", at("base.kld")]);
  const divergence = async (name: string, ...flags: string[]) => {
    const flag = ["--pure", "--token-embedding-type", "f16", ...flags];
    await tinferJson(["quantize", builtIn, at(name), "q4_0", ...flag]);
    const result = ["perplexity", at(name), "--kl-base", at("base.kld")];
    return (await tinferJson<PerplexityResult>(result)).divergence!.mean.value;
  };
  const plain = await divergence("plain.gguf");
  const guided = await divergence("guided.gguf", "--imatrix", at("imatrix.gguf"));
  expect(guided).toBeLessThan(plain);
});

test("a text that is too short is refused, and nothing is written", async () => {
  writeFileSync(at("short.txt"), "Hi.");
  const refused = await tinfer(["imatrix", builtIn, at("short.txt"), "-o", at("none.gguf")]);
  expect(refused.exitCode).toBe(2);
  expect(refused.stderr).toContain("smaller --ctx");
  expect(() => readGguf(at("none.gguf"))).toThrow("no such file");
});
