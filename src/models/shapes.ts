// Shapes of well-known models, and files of that shape with random weights: what a benchmark needs
// of a model without downloading it.
import { nearestMatch, TinferError } from "../core/errors.ts";
import type { GgufValue } from "../weights/gguf-types.ts";
import type { GgufContent, GgufTensorSource } from "../weights/gguf-writer.ts";
import { tensorBytes } from "../weights/quant-types.ts";
import { findMix } from "../weights/quantize-mix.ts";
import { chooseTypes, type TypedTensor } from "../weights/quantize-types.ts";
import { RandomWeights } from "./random-weights.ts";

export interface Shape {
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly contextLen: number;
  readonly ropeTheta: number;
  readonly tiedEmbedding: boolean;
  /** 0 = a dense MLP. */
  readonly numExperts: number;
  readonly numExpertsPerToken: number;
}

function shape(
  layers: readonly [numLayers: number, hiddenSize: number, intermediateSize: number],
  heads: readonly [numHeads: number, numKvHeads: number, headDim: number],
  vocabSize: number,
  rest: Partial<Shape> = {},
): Shape {
  const [numLayers, hiddenSize, intermediateSize] = layers;
  const [numHeads, numKvHeads, headDim] = heads;
  const sizes = { numLayers, hiddenSize, intermediateSize, numHeads, numKvHeads, headDim };
  const usual = {
    ...{ contextLen: 131072, ropeTheta: 500000, tiedEmbedding: false },
    ...{ numExperts: 0, numExpertsPerToken: 0 },
  };
  return { ...sizes, vocabSize, ...usual, ...rest };
}

/** From the models' published configurations; the mixtures of experts are ours. */
const shapes: Readonly<Record<string, Shape>> = {
  "smollm-135m": shape([30, 576, 1536], [9, 3, 64], 49152, {
    contextLen: 2048,
    ropeTheta: 10000,
    tiedEmbedding: true,
  }),
  "tinyllama-1.1b": shape([22, 2048, 5632], [32, 4, 64], 32000, {
    contextLen: 2048,
    ropeTheta: 10000,
  }),
  "llama-3.2-1b": shape([16, 2048, 8192], [32, 8, 64], 128256, { tiedEmbedding: true }),
  "llama-3.2-3b": shape([28, 3072, 8192], [24, 8, 128], 128256, { tiedEmbedding: true }),
  "mistral-7b": shape([32, 4096, 14336], [32, 8, 128], 32768, {
    contextLen: 32768,
    ropeTheta: 1e6,
  }),
  // Mixtral's block, small enough for any machine: 1.1 billion parameters active.
  "mixtral-8x0.4b": shape([16, 2048, 4096], [32, 8, 64], 32000, {
    ...{ contextLen: 32768, ropeTheta: 1e6, numExperts: 8, numExpertsPerToken: 2 },
  }),
  // Many small experts, as in most models since 2024.
  "mixtral-64x0.1b": shape([16, 2048, 1024], [16, 16, 128], 50304, {
    ...{ contextLen: 32768, ropeTheta: 1e6, numExperts: 64, numExpertsPerToken: 8 },
  }),
  "llama-3.1-8b": shape([32, 4096, 14336], [32, 8, 128], 128256),
};

export function findShape(name: string): Shape {
  const found = shapes[name];
  if (found !== undefined) return found;
  const names = Object.keys(shapes);
  const nearest = nearestMatch(name, names);
  throw new TinferError("usage", `shape '${name}' is not known`, {
    hint: `known are ${names.join(", ")}${nearest ? `; nearest: ${nearest}` : ""}`,
  });
}

/** A llama model of the shape with random weights and without a vocabulary. */
export function randomModel(name: string, type: string, seed = 1): GgufContent {
  const size = findShape(name);
  const tensors = tensorsOf(size);
  const headsPerKvHead = size.numHeads / size.numKvHeads;
  const types = chooseTypes(tensors, { ...size, headsPerKvHead }, { mix: findMix(type) });
  const weights = new RandomWeights(seed);
  const sources = tensors.map(({ name, shape }, index): GgufTensorSource => {
    if (shape.length === 1) {
      const ones = new Float32Array(shape[0]!).fill(1);
      return { name, type: "f32", shape, content: new Uint8Array(ones.buffer) };
    }
    const { type } = types.get(name)!;
    const bytes = tensorBytes(type, shape);
    const content = () => weights.blocks(type, bytes, shape.at(-1)!, index);
    return { name, type, shape, content };
  });
  return { metadata: metadataOf(`${name} ${type} random`, size), tensors: sources };
}

/** Norms have one dimension, matrices two, stacks of experts three. */
function tensorsOf(size: Shape): TypedTensor[] {
  const { hiddenSize, intermediateSize, headDim, vocabSize, numExperts } = size;
  const kvWidth = size.numKvHeads * headDim;
  const qWidth = size.numHeads * headDim;
  const tensors: TypedTensor[] = [];
  const tensor = (name: string, ...shape: number[]) =>
    tensors.push({ name: `${name}.weight`, type: "f32", shape });
  tensor("token_embd", vocabSize, hiddenSize);
  for (let layer = 0; layer < size.numLayers; layer++) {
    const part = (name: string, ...shape: number[]) => tensor(`blk.${layer}.${name}`, ...shape);
    part("attn_norm", hiddenSize);
    part("attn_q", qWidth, hiddenSize);
    part("attn_k", kvWidth, hiddenSize);
    part("attn_v", kvWidth, hiddenSize);
    part("attn_output", hiddenSize, qWidth);
    part("ffn_norm", hiddenSize);
    if (numExperts > 0) {
      part("ffn_gate_inp", numExperts, hiddenSize);
      part("ffn_gate_exps", numExperts, intermediateSize, hiddenSize);
      part("ffn_up_exps", numExperts, intermediateSize, hiddenSize);
      part("ffn_down_exps", numExperts, hiddenSize, intermediateSize);
      continue;
    }
    part("ffn_gate", intermediateSize, hiddenSize);
    part("ffn_up", intermediateSize, hiddenSize);
    part("ffn_down", hiddenSize, intermediateSize);
  }
  tensor("output_norm", hiddenSize);
  if (!size.tiedEmbedding) tensor("output", vocabSize, hiddenSize);
  return tensors;
}

function metadataOf(name: string, size: Shape): [string, GgufValue][] {
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const f32 = (value: number): GgufValue => ({ type: "f32", value });
  const text = (value: string): GgufValue => ({ type: "string", value });
  return [
    ["general.architecture", text("llama")],
    ["general.name", text(name)],
    ["llama.block_count", u32(size.numLayers)],
    ["llama.context_length", u32(size.contextLen)],
    ["llama.embedding_length", u32(size.hiddenSize)],
    ["llama.feed_forward_length", u32(size.intermediateSize)],
    ["llama.attention.head_count", u32(size.numHeads)],
    ["llama.attention.head_count_kv", u32(size.numKvHeads)],
    ["llama.attention.key_length", u32(size.headDim)],
    ["llama.attention.value_length", u32(size.headDim)],
    ["llama.attention.layer_norm_rms_epsilon", f32(1e-5)],
    ["llama.rope.dimension_count", u32(size.headDim)],
    ["llama.rope.freq_base", f32(size.ropeTheta)],
    ["llama.vocab_size", u32(size.vocabSize)],
    ["llama.expert_count", u32(size.numExperts)],
    ["llama.expert_used_count", u32(size.numExpertsPerToken)],
    ["tokenizer.ggml.model", text("no_vocab")],
  ];
}
