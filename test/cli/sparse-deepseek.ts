// A file of DeepSeek-V3's shape in small: latent attention, a dense layer, then layers of many
// experts in groups. Nearly all of every expert is a hole in the file, which reads as zero: the
// file is as large as its weights but takes little room on the disk.
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { RandomWeights } from "../../src/models/random-weights.ts";
import type { GgufValue } from "../../src/weights/gguf-types.ts";
import { layOutGguf } from "../../src/weights/gguf-writer.ts";
import { type QuantType, tensorBytes } from "../../src/weights/quant-types.ts";

const size = { hidden: 1024, heads: 16, queryRank: 256, kvRank: 128, dense: 2048, vocab: 300 };
const head = { rotated: 32, plain: 64, value: 64 };
const experts = { count: 256, used: 8, groups: 8, groupsUsed: 4, width: 1664 };
/** Random bytes at the beginning of each expert: whole blocks. */
const filledBytes = 34 * 64;

interface TensorShape {
  readonly name: string;
  readonly type: QuantType;
  readonly shape: readonly number[];
}

function layerShapes(layer: number): [string, number[]][] {
  const { hidden, heads, queryRank, kvRank, dense } = size;
  const part: [string, number[]][] = [
    ["attn_norm", [hidden]],
    ["attn_q_a", [queryRank, hidden]],
    ["attn_q_a_norm", [queryRank]],
    ["attn_q_b", [heads * (head.plain + head.rotated), queryRank]],
    ["attn_kv_a_mqa", [kvRank + head.rotated, hidden]],
    ["attn_kv_a_norm", [kvRank]],
    ["attn_k_b", [heads, kvRank, head.plain]],
    ["attn_v_b", [heads, head.value, kvRank]],
    ["attn_output", [hidden, heads * head.value]],
    ["ffn_norm", [hidden]],
  ];
  const mlp = (suffix: string, width: number, ...count: number[]): [string, number[]][] => [
    [`ffn_gate${suffix}`, [...count, width, hidden]],
    [`ffn_up${suffix}`, [...count, width, hidden]],
    [`ffn_down${suffix}`, [...count, hidden, width]],
  ];
  if (layer === 0) return [...part, ...mlp("", dense)];
  const router: [string, number[]] = ["ffn_gate_inp", [experts.count, hidden]];
  const routed = mlp("_exps", experts.width, experts.count);
  return [...part, router, ...routed, ...mlp("_shexp", experts.width)];
}

function tensorShapes(numLayers: number): TensorShape[] {
  const shapes: [string, number[]][] = [
    ["token_embd", [size.vocab, size.hidden]],
    ["output_norm", [size.hidden]],
    ["output", [size.vocab, size.hidden]],
  ];
  for (let layer = 0; layer < numLayers; layer++) {
    for (const [name, shape] of layerShapes(layer)) shapes.push([`blk.${layer}.${name}`, shape]);
  }
  return shapes.map(([name, shape]) => {
    return { name: `${name}.weight`, type: shape.length === 1 ? "f32" : "q8_0", shape };
  });
}

function metadata(numLayers: number): [string, GgufValue][] {
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const text = (value: string): GgufValue => ({ type: "string", value });
  const tokens = Array.from({ length: size.vocab }, (_, id) => `▁${id}`);
  const keys: Record<string, number> = {
    block_count: numLayers,
    context_length: 512,
    embedding_length: size.hidden,
    feed_forward_length: size.dense,
    leading_dense_block_count: 1,
    "attention.head_count": size.heads,
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": size.queryRank,
    "attention.kv_lora_rank": size.kvRank,
    "attention.key_length": size.kvRank + head.rotated,
    "attention.value_length": size.kvRank,
    "attention.key_length_mla": head.plain + head.rotated,
    "attention.value_length_mla": head.value,
    "rope.dimension_count": head.rotated,
    expert_count: experts.count,
    expert_used_count: experts.used,
    expert_group_count: experts.groups,
    expert_group_used_count: experts.groupsUsed,
    expert_feed_forward_length: experts.width,
    expert_shared_count: 1,
    expert_gating_func: 2,
  };
  return [
    ["general.architecture", text("deepseek2")],
    ...Object.entries(keys).map(([key, value]): [string, GgufValue] => {
      return [`deepseek2.${key}`, u32(value)];
    }),
    ["deepseek2.expert_weights_norm", { type: "bool", value: true }],
    ["tokenizer.ggml.model", text("llama")],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", value: tokens }],
    ["tokenizer.ggml.scores", { type: "array", of: "f32", value: tokens.map((_, id) => -id) }],
  ];
}

/** Writes the model and tells the bytes of its weights. */
export function writeSparseDeepseek(path: string, numLayers: number): number {
  const tensors = tensorShapes(numLayers);
  const { header, offsets, totalBytes } = layOutGguf(metadata(numLayers), tensors);
  const random = new RandomWeights(3);
  const file = openSync(path, "w");
  writeSync(file, header);
  for (const [index, { name, type, shape }] of tensors.entries()) {
    const bytes = tensorBytes(type, shape);
    const isExperts = name.includes("_exps");
    const pieces = isExperts ? experts.count : 1;
    for (let piece = 0; piece < pieces; piece++) {
      const wanted = isExperts ? filledBytes : bytes;
      let at = offsets[index]! + (piece * bytes) / pieces;
      for (const chunk of content(random, type, wanted, shape.at(-1)!, index + piece)) {
        writeSync(file, chunk, 0, chunk.length, at);
        at += chunk.length;
      }
    }
  }
  ftruncateSync(file, totalBytes);
  closeSync(file);
  return totalBytes - header.length;
}

/** Norms are ones. */
function content(
  random: RandomWeights,
  type: QuantType,
  bytes: number,
  cols: number,
  seed: number,
) {
  if (type !== "f32") return random.blocks(type, bytes, cols, seed);
  return [new Uint8Array(new Float32Array(bytes / 4).fill(1).buffer)];
}
