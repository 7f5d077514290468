// `tinfer plan` where a model is more than a mapped file: weights made at load of model folders,
// and tables of the model code. What it says is what loading takes.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ModelMemory } from "../../src/cli/plan.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { ModelFile } from "../../src/engine/model-file.ts";
import { planModel } from "../../src/engine/model-plan.ts";
import { defaultModelOptions, type ModelOptions } from "../../src/engine/options.ts";
import type { GgufValue } from "../../src/weights/gguf-types.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { elementsOf, folderShapes, writeFolder } from "../tiny-folder.ts";
import { tinfer, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

const size = { hidden: 256, heads: 4, kvHeads: 2, ffn: 512, vocab: 320, layers: 2 } as const;
let scratch = "";
let folder = "";

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "tinfer-plan-"));
  folder = join(scratch, "folder");
  writeFolder(folder, size, "F32");
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A folder whose one matrix is a hole in its file: larger than any memory. */
function writeVastFolder(path: string): void {
  const [vocab, hidden] = [2 ** 20, 2 ** 19];
  const bytes = vocab * hidden * 2;
  const entry = { dtype: "BF16", shape: [vocab, hidden], data_offsets: [0, bytes] };
  const text = Buffer.from(JSON.stringify({ "model.embed_tokens.weight": entry }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  mkdirSync(path);
  writeFileSync(join(path, "model.safetensors"), Buffer.concat([length, text]));
  truncateSync(join(path, "model.safetensors"), 8 + text.length + bytes);
  const config = {
    ...{ model_type: "llama", hidden_size: hidden, num_attention_heads: 4096 },
    ...{ intermediate_size: 512, vocab_size: vocab, num_hidden_layers: 1 },
    max_position_embeddings: 512,
  };
  writeFileSync(join(path, "config.json"), JSON.stringify(config));
}

const mla = { heads: 3, kvRank: 32, plain: 24, value: 16, rotated: 8 } as const;

/** A dense deepseek2 of the older form, where one tensor makes a head's keys and values. */
function writeLatentModel(path: string): void {
  const { hidden, ffn, vocab, layers } = size;
  const { heads, kvRank, plain, value, rotated } = mla;
  const shapes: [string, number[]][] = [
    ["token_embd", [vocab, hidden]],
    ["output_norm", [hidden]],
    ["output", [vocab, hidden]],
  ];
  for (let layer = 0; layer < layers; layer++) {
    const parts: [string, number[]][] = [
      ["attn_norm", [hidden]],
      ["attn_q", [heads * (plain + rotated), hidden]],
      ["attn_kv_a_mqa", [kvRank + rotated, hidden]],
      ["attn_kv_a_norm", [kvRank]],
      ["attn_kv_b", [heads * (plain + value), kvRank]],
      ["attn_output", [hidden, heads * value]],
      ["ffn_norm", [hidden]],
      ["ffn_gate", [ffn, hidden]],
      ["ffn_up", [ffn, hidden]],
      ["ffn_down", [hidden, ffn]],
    ];
    for (const [name, shape] of parts) shapes.push([`blk.${layer}.${name}`, shape]);
  }
  const keys: Record<string, number> = {
    block_count: layers,
    context_length: 512,
    embedding_length: hidden,
    feed_forward_length: ffn,
    leading_dense_block_count: layers,
    "attention.head_count": heads,
    "attention.head_count_kv": heads,
    "attention.kv_lora_rank": kvRank,
    "attention.key_length": plain + rotated,
    "attention.value_length": value,
    "rope.dimension_count": rotated,
    vocab_size: vocab,
  };
  const metadata: [string, GgufValue][] = [
    ["general.architecture", { type: "string", value: "deepseek2" }],
    ["tokenizer.ggml.model", { type: "string", value: "no_vocab" }],
    ...Object.entries(keys).map(([key, count]): [string, GgufValue] => {
      return [`deepseek2.${key}`, { type: "u32", value: count }];
    }),
  ];
  const tensors = shapes.map(([name, shape], index) => {
    const floats = Float32Array.from({ length: elementsOf([[name, shape]]) }, (_, i) => {
      return Math.sin(i + index) / 8;
    });
    const content = new Uint8Array(floats.buffer);
    return { name: `${name}.weight`, type: "f32" as const, shape, content };
  });
  writeGguf(path, { metadata, tensors });
}

/** What the plan says, after comparing it with what the loaded model has. */
async function planned(path: string, flags: readonly string[], options: Partial<ModelOptions>) {
  const { devices } = await tinferJson<ModelMemory>(["plan", path, ...flags]);
  const { name, total, ...classes } = devices[0]!;
  using model = new LoadedModel(path, { ...defaultModelOptions, load: "lazy", ...options });
  const { file, session } = model;
  const { kvBytes: kv, arenaBytes: arena, scratchBytes, tableBytes } = session.memory;
  const weights = options.load === "eager" ? file.copiedBytes : model.facts.mappedWeightBytes;
  const taken = { weights, derived: file.madeBytes, tables: tableBytes, kv, arena };
  expect({ name, ...classes }).toEqual({ name: "cpu", ...taken, scratch: scratchBytes });
  expect(total).toBe(Object.values(classes).reduce((sum, bytes) => sum + bytes, 0));
  return classes;
}

/** Each tensor begins on a line, and may be read past its end; memory comes in pages. */
function expectAbout(bytes: number, wanted: number, numTensors: number): void {
  expect(bytes).toBeGreaterThanOrEqual(wanted);
  expect(bytes).toBeLessThan(wanted + numTensors * 128 + 2 ** 16);
}

/** One frequency for every two of a head's rotated values. */
const frequencyBytes = (rotated: number) => (rotated / 2) * 4;

test("a folder: what is mapped and what is made at load", async () => {
  const { permuted, plain } = folderShapes(size);
  const { weights, derived, tables } = await planned(folder, [], {});
  expectAbout(derived, elementsOf(permuted) * 4, permuted.length);
  expect(weights).toBe(elementsOf(plain) * 4);
  expectAbout(tables, frequencyBytes(size.hidden / size.heads), 1);
});

test("a folder that is quantised while it loads, or copied", async () => {
  const { permuted, plain } = folderShapes(size);
  const norms = plain.filter(([, shape]) => shape.length === 1);
  const matrices = [...permuted, ...plain].filter(([, shape]) => shape.length > 1);
  const quantised = await planned(folder, ["--quantize", "q8_0"], { quantize: "q8_0" });
  expectAbout(quantised.derived, (elementsOf(matrices) / 32) * 34, matrices.length);
  expect(quantised.weights).toBe(elementsOf(norms) * 4);
  const eager = await planned(folder, ["--load", "eager"], { load: "eager" });
  expectAbout(eager.derived, elementsOf(permuted) * 4, permuted.length);
});

test("matrices that the model code makes of a file's are tables", async () => {
  const path = join(scratch, "latent.gguf");
  writeLatentModel(path);
  const { derived, tables } = await planned(path, [], {});
  const keys = size.layers * mla.heads * mla.kvRank * mla.plain * 4;
  expectAbout(tables, keys + frequencyBytes(mla.rotated), size.layers + 1);
  expect(derived).toBe(0);
  const { stdout } = await tinfer(["plan", path]);
  expect(stdout).toMatch(new RegExp(`tables +${tables.toLocaleString("en-US")} B`));
});

test("a plan makes none of its tables", () => {
  const path = join(scratch, "gone.gguf");
  writeLatentModel(path);
  using file = new ModelFile(path);
  rmSync(path);
  const { plan, memoryPlan } = planModel(file, "tokens", defaultModelOptions);
  expect(memoryPlan.memory.tableBytes).toBeGreaterThan(0);
  const { constant } = plan.weights.find(({ name }) => name.startsWith("blk.0.attn_k_b"))!;
  expect(() => constant!.table.make()).toThrow();
});

test("weights made at load that have no room are refused before any is made", async () => {
  const path = join(scratch, "vast");
  writeVastFolder(path);
  const { stderr, exitCode } = await tinfer(["plan", path, "--quantize", "q8_0"]);
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/making weights at load needs 584\.1\d GB, [\d.]+ GB are available/);
  expect(stderr).toContain("tinfer quantize");
});
