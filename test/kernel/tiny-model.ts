// A tiny Llama file with random weights of chosen types: enough layers and heads for every op and
// cache to matter, and small enough to run hundreds of steps.
import type { GgufValue } from "../../src/weights/gguf-types.ts";
import type { GgufContent, GgufTensorSource } from "../../src/weights/gguf-writer.ts";
import type { QuantType } from "../../src/weights/quant-types.ts";
import { Random } from "./random.ts";

export interface TinyTypes {
  readonly embedding: QuantType;
  readonly attention: QuantType;
  readonly value: QuantType;
  readonly mlp: QuantType;
  readonly down: QuantType;
  readonly output: QuantType;
  /** Experts of the MLP, of which each token takes two; 0 = a dense one. */
  readonly numExperts: number;
}

export const tinyMixes: Readonly<Record<string, TinyTypes>> = {
  floats: mix("f16", "f32", "bf16", "f16", "f32", "bf16"),
  "k-mix": mix("q4_k", "q4_k", "q6_k", "q4_k", "q5_k", "q6_k"),
  "small-k": mix("q3_k", "q2_k", "q3_k", "q2_k", "q3_k", "q5_k"),
  blocks: mix("q8_0", "q4_0", "q5_0", "q4_1", "q5_1", "q8_0"),
  // None of them may lie interleaved.
  codebooks: mix("iq2_s", "iq3_s", "iq3_xxs", "iq2_xs", "iq1_m", "iq2_s"),
  experts: { ...mix("q8_0", "q4_k", "q6_k", "q4_k", "q5_0", "q6_k"), numExperts: 5 },
};

function mix(
  ...types: readonly [QuantType, QuantType, QuantType, QuantType, QuantType, QuantType]
): TinyTypes {
  const [embedding, attention, value, mlp, down, output] = types;
  return { embedding, attention, value, mlp, down, output, numExperts: 0 };
}

export const tinyVocabSize = 300;
const [numLayers, hiddenSize, intermediateSize] = [2, 256, 512];
const [numHeads, numKvHeads, headDim] = [4, 2, 64];

export function tinyModel(name: string, types: TinyTypes): GgufContent {
  const random = new Random(`tiny model ${name}`);
  const tensors: GgufTensorSource[] = [];
  /** One matrix, or a stack of `count`. */
  const matrix = (tensor: string, type: QuantType, rows: number, cols: number, count = 0) => {
    const content = random.weights(type, rows * Math.max(1, count), cols);
    const shape = count > 0 ? [count, rows, cols] : [rows, cols];
    tensors.push({ name: `${tensor}.weight`, type, shape, content });
  };
  const vector = (tensor: string, values: Float32Array) => {
    const content = new Uint8Array(values.buffer);
    tensors.push({ name: tensor, type: "f32", shape: [values.length], content });
  };
  const ones = (tensor: string) =>
    vector(
      `${tensor}.weight`,
      random.normals(hiddenSize, 0.1).map((value) => value + 1),
    );
  const kvWidth = numKvHeads * headDim;
  matrix("token_embd", types.embedding, tinyVocabSize, hiddenSize);
  for (let layer = 0; layer < numLayers; layer++) {
    const part = (suffix: string) => `blk.${layer}.${suffix}`;
    ones(part("attn_norm"));
    matrix(part("attn_q"), types.attention, numHeads * headDim, hiddenSize);
    matrix(part("attn_k"), types.attention, kvWidth, hiddenSize);
    matrix(part("attn_v"), types.value, kvWidth, hiddenSize);
    vector(part("attn_q.bias"), random.normals(numHeads * headDim, 0.2));
    matrix(part("attn_output"), types.attention, hiddenSize, numHeads * headDim);
    ones(part("ffn_norm"));
    const suffix = types.numExperts > 0 ? "_exps" : "";
    if (types.numExperts > 0) matrix(part("ffn_gate_inp"), "f32", types.numExperts, hiddenSize);
    const experts = (projection: string, type: QuantType, rows: number, cols: number) =>
      matrix(part(`ffn_${projection}${suffix}`), type, rows, cols, types.numExperts);
    experts("gate", types.mlp, intermediateSize, hiddenSize);
    experts("up", types.mlp, intermediateSize, hiddenSize);
    experts("down", types.down, hiddenSize, intermediateSize);
  }
  ones("output_norm");
  matrix("output", types.output, tinyVocabSize, hiddenSize);
  return { metadata: metadataOf(name, types.numExperts), tensors };
}

function metadataOf(name: string, numExperts: number): [string, GgufValue][] {
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const text = (value: string): GgufValue => ({ type: "string", value });
  return [
    ["general.architecture", text("llama")],
    ["general.name", text(`tiny ${name}`)],
    ["llama.block_count", u32(numLayers)],
    ["llama.context_length", u32(2048)],
    ["llama.embedding_length", u32(hiddenSize)],
    ["llama.feed_forward_length", u32(intermediateSize)],
    ["llama.attention.head_count", u32(numHeads)],
    ["llama.attention.head_count_kv", u32(numKvHeads)],
    ["llama.attention.layer_norm_rms_epsilon", { type: "f32", value: 1e-5 }],
    ["llama.rope.dimension_count", u32(headDim)],
    ["llama.vocab_size", u32(tinyVocabSize)],
    ["tokenizer.ggml.model", text("no_vocab")],
    ["llama.expert_count", u32(numExperts)],
    ["llama.expert_used_count", u32(Math.min(2, numExperts))],
  ];
}
