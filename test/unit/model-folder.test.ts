// Small model folders: what their tensors become, and what is refused.
import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openFolder } from "../../src/hugging-face/folder.ts";
import { readModelConfig } from "../../src/models/model-config.ts";
import type { StringArray } from "../../src/weights/metadata.ts";
import { isInFile } from "../../src/weights/model-header.ts";
import { readTensorFloats } from "../../src/weights/tensor-content.ts";

const scratch = mkdtempSync(join(tmpdir(), "tinfer-folder-"));
afterAll(() => rmSync(scratch, { recursive: true }));
let count = 0;

interface Stored {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

const config = {
  ...{ model_type: "llama", hidden_size: 4, num_attention_heads: 2, num_hidden_layers: 1 },
  ...{ num_key_value_heads: 1, intermediate_size: 4, vocab_size: 8 },
};

function open(tensors: Readonly<Record<string, Stored>>, more: object = {}) {
  const folder = join(scratch, String(count++));
  mkdirSync(folder);
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, ...more }));
  let end = 0;
  const entries = Object.entries(tensors).map(([name, { dtype, shape, bytes }]) => {
    const start = end;
    end += bytes.length;
    return [name, { dtype, shape, data_offsets: [start, end] }];
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const data = Object.values(tensors).map(({ bytes }) => bytes);
  writeFileSync(join(folder, "model.safetensors"), Buffer.concat([length, header, ...data]));
  return openFolder(folder);
}

function f32(shape: readonly number[], values: readonly number[]): Stored {
  return { dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(values).buffer) };
}

function bf16(shape: readonly number[], values: readonly number[]): Stored {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  return {
    dtype: "BF16",
    shape,
    bytes: new Uint8Array(Uint16Array.from(bits, (b) => b >>> 16).buffer),
  };
}

function floats(header: ReturnType<typeof open>, name: string): number[] {
  return [...readTensorFloats(header, header.tensors.get(name)!)];
}

test("matrices stay where they are, norms become F32, pairs of q lie side by side", () => {
  const rows = [0, 1, 2, 3];
  const header = open({
    "model.layers.0.mlp.up_proj.weight": bf16([4, 4], new Array(16).fill(2)),
    "model.layers.0.input_layernorm.weight": bf16([4], [1, 2, 3, 4]),
    "model.layers.0.self_attn.k_proj.weight": bf16(
      [4, 4],
      rows.flatMap((n) => [n, n, n, n]),
    ),
    "model.layers.0.self_attn.rotary_emb.inv_freq": f32([2], [1, 2]),
  });
  const up = header.tensors.get("blk.0.ffn_up.weight")!;
  expect([up.type, isInFile(up)]).toEqual(["bf16", true]);
  const norm = header.tensors.get("blk.0.attn_norm.weight")!;
  expect([norm.type, isInFile(norm)]).toEqual(["f32", false]);
  expect(floats(header, norm.name)).toEqual([1, 2, 3, 4]);
  const k = floats(header, "blk.0.attn_k.weight").filter((_, i) => i % 4 === 0);
  expect(k).toEqual([0, 2, 1, 3]);
  expect([...header.tensors.keys()].length).toBe(3);
});

test("8-bit floats come with their scales, of blocks as config.json says", () => {
  const ones = { dtype: "F8_E4M3", shape: [4, 4], bytes: new Uint8Array(16).fill(0x38) };
  const name = "model.layers.0.mlp.up_proj.weight";
  const quantization_config = { quant_method: "fp8", weight_block_size: [2, 2] };
  const scale = f32([2, 2], [1, 2, 3, 4]);
  const header = open({ [name]: ones, [`${name}_scale_inv`]: scale }, { quantization_config });
  const values = floats(header, "blk.0.ffn_up.weight");
  expect(values).toEqual([1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
  const whole = open({ [name]: ones, [`${name}_scale`]: f32([], [0.5]) });
  expect(floats(whole, "blk.0.ffn_up.weight")).toEqual(new Array(16).fill(0.5));
});

test("8-bit floats stay where they are, with their scales; moved rows take theirs along", () => {
  const codes = Uint8Array.from({ length: 32 * 16 }, (_, i) => 0x30 + (i % 16));
  const stored = { dtype: "F8_E4M3", shape: [16, 32], bytes: codes };
  const name = (part: string) => `model.layers.0.${part}.weight`;
  const quantization_config = { quant_method: "fp8", weight_block_size: [4, 16] };
  const scale = f32(
    [4, 2],
    [1, 2, 3, 4, 5, 6, 7, 8].map((value) => value / 8),
  );
  const own = { hidden_size: 32, quantization_config };
  const header = open(
    {
      [name("mlp.up_proj")]: stored,
      [`${name("mlp.up_proj")}_scale_inv`]: scale,
      [name("mlp.gate_proj")]: stored,
      [`${name("mlp.gate_proj")}_scale`]: bf16([16, 1], new Array(16).fill(0.5)),
      [name("self_attn.k_proj")]: stored,
      [`${name("self_attn.k_proj")}_scale_inv`]: scale,
    },
    own,
  );
  const up = header.tensors.get("blk.0.ffn_up.weight")!;
  expect([up.type, isInFile(up), isInFile(up.scales!.tensor)]).toEqual(["f8_e4m3", true, true]);
  expect([up.scales!.blockRows, up.scales!.blockCols]).toEqual([4, 16]);
  // Scales that are not F32 are made.
  const gate = header.tensors.get("blk.0.ffn_gate.weight")!;
  expect([isInFile(gate), isInFile(gate.scales!.tensor)]).toEqual([true, false]);
  expect(gate.scales!.tensor.shape).toEqual([16, 1]);
  const k = header.tensors.get("blk.0.attn_k.weight")!;
  expect([k.type, isInFile(k), k.scales!.blockRows]).toEqual(["f8_e4m3", false, 1]);
  // Of one head: rows 0, 8, 1, 9 and so on.
  const order = Array.from({ length: 16 }, (_, row) => (row % 2) * 8 + (row >> 1));
  const upFloats = floats(header, up.name);
  const moved = order.flatMap((row) => upFloats.slice(row * 32, (row + 1) * 32));
  expect(floats(header, k.name)).toEqual(moved);
  expect(upFloats.slice(0, 2)).toEqual([0.5 / 8, 0.5625 / 8]);
  expect(upFloats.slice(-2)).toEqual([1.75, 1.875]);
});

test("experts in 4 bits: scales join their blocks, gate and up rows part", () => {
  // Two rows of one block: weights 0 to 15 twice, then 15 to 0 twice; scales 1 and 2.
  const codes = (weight: (index: number) => number) =>
    Array.from({ length: 16 }, (_, k) => weight(2 * k) | (weight(2 * k + 1) << 4));
  const up = codes((i) => i % 16);
  const down = codes((i) => 15 - (i % 16));
  const name = "model.layers.0.mlp.experts.gate_up_proj";
  const header = open(
    {
      [`${name}_blocks`]: {
        dtype: "U8",
        shape: [1, 2, 1, 16],
        bytes: Uint8Array.from([...up, ...down]),
      },
      [`${name}_scales`]: { dtype: "U8", shape: [1, 2, 1], bytes: Uint8Array.of(127, 128) },
      [`${name}_bias`]: bf16([1, 2], [3, 4]),
    },
    { model_type: "gpt_oss" },
  );
  const levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6];
  const gate = header.tensors.get("blk.0.ffn_gate_exps.weight")!;
  expect([gate.type, gate.shape]).toEqual(["mxfp4", [1, 1, 32]]);
  expect(floats(header, gate.name)).toEqual([...levels, ...levels]);
  const turned = levels.toReversed().map((level) => 2 * level);
  expect(floats(header, "blk.0.ffn_up_exps.weight")).toEqual([...turned, ...turned]);
  expect(floats(header, "blk.0.ffn_gate_exps.bias")).toEqual([3]);
  expect(floats(header, "blk.0.ffn_up_exps.bias")).toEqual([4]);
});

test("what is not known is refused by name", () => {
  const one = f32([1], [1]);
  expect(() => open({ "model.layers.0.mlp.extra.weight": one })).toThrow(/extra.*has no place/);
  const integers = { dtype: "I32", shape: [1], bytes: new Uint8Array(4) };
  expect(() => open({ "model.norm.weight": integers })).toThrow(
    /'model.norm.weight' is of dtype I32/,
  );
  expect(() => open({}, { model_type: "lama" })).toThrow(/model_type 'lama' is not known/);
  const quantization_config = { quant_method: "gptq" };
  expect(() => open({}, { quantization_config })).toThrow(/quantised by 'gptq'/);
  expect(() => open({}, { rope_scaling: { type: "odd" } })).toThrow(/rope type 'odd'/);
});

test("absurd hyperparameters are refused before anything is made of them", () => {
  for (const weight_block_size of [[128], [0, 128], [0.5, 16], [-1, 2 ** 40]]) {
    const quantization_config = { quant_method: "fp8", weight_block_size };
    expect(() => open({}, { quantization_config })).toThrow(
      /quantization_config.weight_block_size/,
    );
  }
  for (const value of [-1, 1.5, 1e12, "4", [4], {}]) {
    expect(() => open({}, { num_hidden_layers: value })).toThrow(/num_hidden_layers/);
  }
  const q = { "model.layers.0.self_attn.q_proj.weight": f32([4, 4], new Array(16).fill(1)) };
  expect(() => open(q, { num_attention_heads: 3 })).toThrow(/4 rows are not 3 heads/);
  expect(() => open(q, { num_attention_heads: 0 })).toThrow(/4 rows are not 0 heads/);
});

test("experts with inputs as rows: gate and up lie side by side, and are turned", () => {
  const numbers = Array.from({ length: 24 }, (_, i) => i);
  const own = { model_type: "llama4_text", intermediate_size_mlp: 4 };
  const name = "language_model.model.layers.0.feed_forward.experts";
  const header = open(
    {
      [`${name}.gate_up_proj`]: bf16([2, 3, 4], numbers),
      [`${name}.down_proj`]: bf16([2, 2, 3], numbers.slice(0, 12)),
      "vision_model.patch_embedding.weight": f32([1], [1]),
    },
    own,
  );
  const gate = header.tensors.get("blk.0.ffn_gate_exps.weight")!;
  expect([gate.type, gate.shape]).toEqual(["bf16", [2, 2, 3]]);
  expect(floats(header, gate.name)).toEqual([0, 4, 8, 1, 5, 9, 12, 16, 20, 13, 17, 21]);
  const up = floats(header, "blk.0.ffn_up_exps.weight");
  expect(up).toEqual([2, 6, 10, 3, 7, 11, 14, 18, 22, 15, 19, 23]);
  const down = floats(header, "blk.0.ffn_down_exps.weight");
  expect(down).toEqual([0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
  expect(header.tensors.size).toBe(3);
  const whole = open({}, { model_type: "whole", text_config: { ...config, ...own } });
  expect([header.format, whole.format]).toEqual([
    "safetensors",
    "safetensors, its text part alone",
  ]);
  // What the model code has as constants.
  for (const [key, value] of Object.entries({
    ...{ attention_chunk_size: 4096, attn_temperature_tuning: false, use_qk_norm: false },
    ...{ no_rope_layers: [0], moe_layers: [1], layer_types: ["full_attention"] },
  })) {
    expect(() => open({}, { ...own, [key]: value })).toThrow(`'${key}'`);
  }
});

test("windows: which layers have one, and what those rotate by", () => {
  const layers = (...flags: number[]) =>
    flags.map((slides) => (slides ? "sliding_attention" : "full_attention"));
  const windowsOf = (more: object) => {
    const own = { model_type: "gemma3_text", num_hidden_layers: 3, sliding_window: 8, ...more };
    const { windowLen, windowPattern, ownRope } = readModelConfig(open({}, own).metadata);
    return [windowLen, windowPattern, ownRope.windowTheta];
  };
  expect(windowsOf({})).toEqual([8, undefined, undefined]);
  expect(windowsOf({ sliding_window_pattern: 2, rope_local_base_freq: 500 })).toEqual([8, 2, 500]);
  const rope_parameters = {
    full_attention: { rope_type: "default", rope_theta: 7000 },
    sliding_attention: { rope_type: "default", rope_theta: 300 },
  };
  const listed = windowsOf({ layer_types: layers(0, 1, 1), rope_parameters });
  expect(listed).toEqual([8, [false, true, true], 300]);
  expect(windowsOf({ sliding_window_pattern: 1 })[0]).toBeUndefined();
  expect(windowsOf({ layer_types: layers(0, 0, 0) })[0]).toBeUndefined();
});

test("one scale for each of several 8-bit matrices", () => {
  const ones = { dtype: "F8_E4M3", shape: [2, 2, 4], bytes: new Uint8Array(16).fill(0x38) };
  const name = "model.layers.0.mlp.experts.down_proj";
  const own = {
    ...{ model_type: "mistral4", qk_rope_head_dim: 2, qk_nope_head_dim: 2, v_head_dim: 2 },
    rope_parameters: {
      ...{ rope_type: "yarn", factor: 4, original_max_position_embeddings: 32 },
      llama_4_scaling_beta: 0.5,
    },
  };
  const header = open(
    {
      [name]: ones,
      [`${name}_scale_inv`]: f32([2, 1, 1], [0.5, 3]),
      [`${name}_activation_scale`]: f32([], [1]),
    },
    own,
  );
  const values = floats(header, "blk.0.ffn_down_exps.weight");
  expect(values).toEqual([...new Array(8).fill(0.5), ...new Array(8).fill(3)]);
  const temperature = ["scale", "length"].map((part) => {
    return header.metadata.get(`mistral4.attention.temperature_${part}`);
  });
  expect(temperature).toEqual([0.5, 32]);
});

test("a RoBERTa for pairs of texts brings the head of a reranker", () => {
  const own = {
    ...{ model_type: "xlm-roberta", pad_token_id: 1, max_position_embeddings: 6 },
    architectures: ["XLMRobertaForSequenceClassification"],
    id2label: { 1: "no", 0: "yes" },
  };
  const head = {
    "classifier.dense.weight": f32([4, 4], new Array(16).fill(1)),
    "classifier.out_proj.weight": f32([2, 4], new Array(8).fill(2)),
  };
  const header = open(head, own);
  expect([...header.tensors.keys()].toSorted()).toEqual(["cls.output.weight", "cls.weight"]);
  const config = readModelConfig(header.metadata);
  expect([config.pooling, config.numLabels]).toEqual(["rank", 2]);
  const labels = header.metadata.get("bert.classifier.output_labels") as StringArray;
  expect(labels.toArray()).toEqual(["yes", "no"]);
  const { id2label: _, ...unnamed } = own;
  expect(readModelConfig(open(head, unnamed).metadata).numLabels).toBe(2);
  const embedder = open({}, { ...own, architectures: ["XLMRobertaModel"] });
  expect(readModelConfig(embedder.metadata).pooling).toBe("none");
});

test("RoBERTa's positions begin beyond the padding token's id", () => {
  const rows = [0, 1, 2, 3, 4, 5].flatMap((n) => [n, n, n, n]);
  const name = "roberta.embeddings.position_embeddings.weight";
  const own = { model_type: "xlm-roberta", pad_token_id: 1, max_position_embeddings: 6 };
  const header = open({ [name]: f32([6, 4], rows), "lm_head.bias": f32([1], [1]) }, own);
  expect(header.tensors.get("position_embd.weight")!.shape).toEqual([4, 4]);
  expect(floats(header, "position_embd.weight")).toEqual(rows.slice(8));
  expect(header.metadata.get("bert.context_length")).toBe(4);
  expect(header.tensors.size).toBe(1);
  expect(() => open({}, { ...own, max_position_embeddings: 2 })).toThrow(/max_position_emb/);
  expect(() => open({ [name]: f32([2, 4], rows.slice(0, 8)) }, own)).toThrow(/2 rows/);
});
