// `tinfer show`, `plan` and `logits`: what they say of good files, and that the plan is the load.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ModelDescription } from "../../src/cli/model-description.ts";
import type { ModelMemory } from "../../src/cli/plan.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions, type ModelOptions } from "../../src/engine/options.ts";
import { encodeGguf, writeGguf } from "../../src/weights/gguf-writer.ts";
import { tinyModel as expertModel, tinyMixes } from "../kernel/tiny-model.ts";
import { root, tinfer, tinferJson } from "./spawn.ts";
import { tinyModel, tinySize } from "./tiny-model.ts";

setDefaultTimeout(60_000);

const builtIn = join(root, "assets", "stories260K.gguf");
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-models-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, ...options: Parameters<typeof tinyModel>): string {
  const path = join(folder, `${name}.gguf`);
  writeGguf(path, tinyModel(...options));
  return path;
}

test("show --json: metadata, architecture, parameters, tensors, tokenizer, template", async () => {
  const path = write("full", {
    template: "{{ messages }}",
    types: { "output_norm.weight": "f32" },
  });
  const model = await tinferJson<ModelDescription>(["show", path]);
  expect(model).toMatchObject({
    path,
    architecture: "llama",
    architectureKnown: true,
    name: "tiny",
    contextLen: 256,
    chatTemplate: true,
    tokenizer: { kind: "llama", vocabSize: tinySize.vocab, bosId: 1, eosId: 2, problem: null },
  });
  expect(model.metadata["llama.embedding_length"]).toBe(tinySize.hidden);
  // Long arrays are bounded, and say how long they are.
  expect(model.metadata["tokenizer.ggml.tokens"]).toEqual({
    length: tinySize.vocab,
    first: ["<unk>", "<s>", "</s>", "<0x00>", "<0x01>", "<0x02>", "<0x03>", "<0x04>"],
  });
  const { parameters, tensors, weightBytes } = model;
  const elements = tensors.map(({ shape }) => shape.reduce((a, b) => a * b, 1));
  expect(parameters.total).toBe(elements.reduce((a, b) => a + b, 0));
  expect(parameters.active).toBe(parameters.total);
  expect(weightBytes).toBe(parameters.total * 4);
  expect(tensors.find(({ name }) => name === "blk.0.attn_k.weight")).toEqual({
    name: "blk.0.attn_k.weight",
    type: "f32",
    shape: [128, 256],
    bytes: 128 * 256 * 4,
  });
});

test("show counts the experts in use, and reads files that cannot be run", async () => {
  const experts = write("experts", { experts: { count: 8, used: 2 }, architecture: "mystery" });
  const vocabulary = join(folder, "vocabulary.gguf");
  writeFileSync(vocabulary, encodeGguf({ metadata: tinyModel().metadata, tensors: [] }));
  const strange = write("strange", { tokenizer: "runes" });
  const [moe, words, runes, text] = await Promise.all([
    tinferJson<ModelDescription>(["show", experts]),
    tinferJson<ModelDescription>(["show", vocabulary]),
    tinferJson<ModelDescription>(["show", strange]),
    tinfer(["show", experts]),
  ]);
  const routed = 8 * tinySize.ffn * tinySize.hidden;
  expect(moe.parameters.total - moe.parameters.active).toBe((routed / 8) * 6);
  expect(moe.architectureKnown).toBe(false);
  expect(words).toMatchObject({ tensors: [], parameters: { total: 0 }, weightBytes: 0 });
  expect(runes.tokenizer).toMatchObject({ kind: "runes", vocabSize: tinySize.vocab });
  expect(runes.tokenizer?.problem).toContain("'runes' is not known");
  expect(text.stdout).toContain("mystery (not known to this tinfer");
  expect(text.stdout).toContain("blk.0.ffn_up_exps.weight");
});

test("what a file says cannot steer the terminal", async () => {
  const path = write("escape", { architecture: "\u001b[31mred\u0007\nnext" });
  const [show, run] = await Promise.all([tinfer(["show", path]), tinfer(["run", path, "hi"])]);
  for (const text of [show.stdout, run.stderr]) {
    expect(text).not.toContain("\u0007");
    expect(text).not.toContain("\u001b[31mred");
    expect(text).toContain("\\u001b[31mred\\u0007");
  }
  expect(show.stdout).toContain("red\\u0007\\nnext");
});

/** Options of the engine that a command line means. */
const plans: [flags: string[], options: Partial<ModelOptions>][] = [
  [[], {}],
  [["--threads", "1", "--ctx", "100"], { numThreads: 1, contextLen: 100 }],
  [["--parallel", "5", "--kv-type", "q8_0"], { maxSequences: 5, kvTypeK: "q8_0", kvTypeV: "q8_0" }],
  [["--kv-type-v", "f32", "--cpu", "v2"], { kvTypeV: "f32", cpuVariant: "v2" }],
  [["--backend", "reference"], { backend: "reference" }],
];

test("plan prints, to the byte, what loading the model takes", async () => {
  const path = write("planned");
  const wanted = plans.filter(([flags]) => process.arch === "x64" || !flags.includes("v2"));
  await Promise.all(
    wanted.map(async ([flags, options]) => {
      const { devices, maxContextLen, kvBlocks } = await tinferJson<ModelMemory>([
        ...["plan", path, ...flags],
      ]);
      using model = new LoadedModel(path, { ...defaultModelOptions, ...options });
      const { kvBytes, arenaBytes, scratchBytes, tableBytes } = model.session.memory;
      const [device] = devices;
      expect({ flags, ...device! }).toEqual({
        flags,
        name: "cpu",
        weights: model.facts.weightBytes,
        derived: 0,
        tables: tableBytes,
        kv: kvBytes,
        arena: arenaBytes,
        scratch: scratchBytes,
        total: model.facts.weightBytes + tableBytes + kvBytes + arenaBytes + scratchBytes,
      });
      expect(maxContextLen).toBe(model.facts.maxContextLen);
      expect(kvBlocks).toBe(model.memoryPlan.limits.numBlocks);
    }),
  );
});

test("plan tells the parameters that one token uses from all", async () => {
  const path = join(folder, "experts.gguf");
  writeGguf(path, expertModel("experts", tinyMixes["experts"]!));
  const { parameters } = await tinferJson<ModelMemory>(["plan", path]);
  // Two of five experts, in two layers of three matrices.
  const idle = 2 * 3 * 3 * 256 * 512;
  expect(parameters.total - parameters.active).toBe(idle);
});

test("a context larger than memory is refused with the largest that fits", async () => {
  const path = write("large", { contextLen: 2 ** 27 });
  const [plan, run] = await Promise.all([
    tinfer(["plan", path, "--ctx", String(2 ** 27), "--parallel", "4096"]),
    tinfer(["run", path, "hi", "--raw", "--ctx", String(2 ** 28)]),
  ]);
  for (const { stdout, stderr, exitCode } of [plan, run]) {
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 1 });
    expect(stderr).toMatch(/needs [\d.]+ GB, [\d.]+ GB are available/);
  }
  const largest = Number(/--ctx (\d+)/.exec(run.stderr)?.[1]);
  expect(largest).toBeGreaterThan(1000);
  const fits = await tinfer(["plan", path, "--ctx", String(Math.floor(largest / 2)), "--json"]);
  expect(fits.exitCode).toBe(0);
});

test("logits: one row of f32 per token, the same in any chunks", async () => {
  const [whole, single] = [join(folder, "whole.f32"), join(folder, "single.f32")];
  const ids = ["--token-ids", "1,403,407,261,378"];
  const [report] = await Promise.all([
    tinfer(["logits", builtIn, ...ids, "--output", whole]),
    tinfer(["logits", builtIn, ...ids, "-o", single, "--chunk", "1", "--threads", "1"]),
  ]);
  expect(JSON.parse(report.stdout)).toEqual({ output: whole, tokens: 5, vocabSize: 512 });
  const bytes = readFileSync(whole);
  expect(bytes.length).toBe(5 * 512 * 4);
  expect(bytes.equals(readFileSync(single))).toBe(true);
  const last = new Float32Array(bytes.buffer, bytes.byteOffset + 4 * 512 * 4, 512);
  expect(last.indexOf(Math.max(...last))).toBe(432);
  const refused = await tinfer(["logits", builtIn, ...ids, "-o", folder]);
  expect(refused.exitCode).toBe(2);
  expect(refused.stderr).toContain("is a folder");
});
