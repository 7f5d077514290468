// Shapes of well-known models, and files of that shape with random weights: what a benchmark needs
// of a model without downloading it. The weight mixes are those that the field calls q4_k_m etc.
import { nearestMatch, TinferError } from "../core/errors.ts";
import type { GgufContent, GgufTensorSource, GgufValue } from "../weights/gguf-writer.ts";
import { isQuantType, type QuantType, quantTypeInfo, tensorBytes } from "../weights/quant-types.ts";
import { canQuantize } from "../weights/quantize.ts";
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

/** Types of one file: the bulk, the tensors that quantisation hurts most, and the output matrix. */
interface Mix {
  readonly bulk: QuantType;
  /** attn_v and ffn_down of the first and last eighth and every third layer between. */
  readonly sensitive: QuantType;
  readonly output: QuantType;
}

const mixes: Readonly<Record<string, Mix>> = {
  q4_k_m: { bulk: "q4_k", sensitive: "q6_k", output: "q6_k" },
  q5_k_m: { bulk: "q5_k", sensitive: "q6_k", output: "q6_k" },
  q4_k_s: { bulk: "q4_k", sensitive: "q4_k", output: "q6_k" },
  q4_0: { bulk: "q4_0", sensitive: "q4_0", output: "q6_k" },
  q4_1: { bulk: "q4_1", sensitive: "q4_1", output: "q6_k" },
  q5_0: { bulk: "q5_0", sensitive: "q5_0", output: "q6_k" },
  q5_1: { bulk: "q5_1", sensitive: "q5_1", output: "q6_k" },
  q2_k: { bulk: "q2_k", sensitive: "q3_k", output: "q6_k" },
  q3_k_m: { bulk: "q3_k", sensitive: "q5_k", output: "q6_k" },
};

function findMix(name: string): Mix {
  const mix = mixes[name];
  if (mix !== undefined) return mix;
  if (isQuantType(name) && canQuantize(name)) return { bulk: name, sensitive: name, output: name };
  throw new TinferError("usage", `weight type '${name}' is not known here`, {
    hint: `use ${Object.keys(mixes).join(", ")}, or a plain type such as q8_0, q6_k, f16, bf16, f32`,
  });
}

/** Layers that keep more bits in the usual mixes: both ends, and every third between. */
function keepsMoreBits(layer: number, numLayers: number): boolean {
  const eighth = Math.floor(numLayers / 8);
  return layer < eighth || layer >= 7 * eighth || (layer - eighth) % 3 === 2;
}

/** Where rows are not whole super-blocks, quantisers take the next larger type of 32-blocks. */
const smallBlockTypes: Readonly<Partial<Record<QuantType, QuantType>>> = {
  q4_k: "q5_0",
  q5_k: "q5_1",
  q6_k: "q8_0",
};

function typeOfRows(type: QuantType, cols: number): QuantType {
  if (cols % quantTypeInfo(type).quantBlockSize === 0) return type;
  const smaller = smallBlockTypes[type] ?? "iq4_nl";
  return cols % quantTypeInfo(smaller).quantBlockSize === 0 ? smaller : "f16";
}

/** A llama model of the shape with random weights and without a vocabulary. */
export function randomModel(name: string, type: string, seed = 1): GgufContent {
  const size = findShape(name);
  const mix = findMix(type);
  const tensors: GgufTensorSource[] = [];
  const weights = new RandomWeights(seed);
  const tensor = (tensorName: string, shape: readonly number[], wanted: QuantType) => {
    const cols = shape.at(-1)!;
    const quantType = typeOfRows(wanted, cols);
    const bytes = tensorBytes(quantType, shape);
    const index = tensors.length;
    const content = () => weights.blocks(quantType, bytes, cols, index);
    tensors.push({ name: tensorName, type: quantType, shape, content });
  };
  const matrix = (tensorName: string, rows: number, cols: number, quantType: QuantType) =>
    tensor(tensorName, [rows, cols], quantType);
  const ones = (tensorName: string) => {
    const values = new Float32Array(size.hiddenSize).fill(1);
    const content = new Uint8Array(values.buffer);
    tensors.push({ name: tensorName, type: "f32", shape: [size.hiddenSize], content });
  };
  const { hiddenSize, intermediateSize, headDim, vocabSize, numExperts } = size;
  const kvWidth = size.numKvHeads * headDim;
  matrix("token_embd.weight", vocabSize, hiddenSize, size.tiedEmbedding ? mix.output : mix.bulk);
  for (let layer = 0; layer < size.numLayers; layer++) {
    const part = (suffix: string) => `blk.${layer}.${suffix}.weight`;
    const sensitive = keepsMoreBits(layer, size.numLayers) ? mix.sensitive : mix.bulk;
    ones(part("attn_norm"));
    matrix(part("attn_q"), size.numHeads * headDim, hiddenSize, mix.bulk);
    matrix(part("attn_k"), kvWidth, hiddenSize, mix.bulk);
    matrix(part("attn_v"), kvWidth, hiddenSize, sensitive);
    matrix(part("attn_output"), hiddenSize, size.numHeads * headDim, mix.bulk);
    ones(part("ffn_norm"));
    if (numExperts > 0) {
      matrix(part("ffn_gate_inp"), numExperts, hiddenSize, "f32");
      tensor(part("ffn_gate_exps"), [numExperts, intermediateSize, hiddenSize], mix.bulk);
      tensor(part("ffn_up_exps"), [numExperts, intermediateSize, hiddenSize], mix.bulk);
      tensor(part("ffn_down_exps"), [numExperts, hiddenSize, intermediateSize], sensitive);
      continue;
    }
    matrix(part("ffn_gate"), intermediateSize, hiddenSize, mix.bulk);
    matrix(part("ffn_up"), intermediateSize, hiddenSize, mix.bulk);
    matrix(part("ffn_down"), hiddenSize, intermediateSize, sensitive);
  }
  ones("output_norm.weight");
  if (!size.tiedEmbedding) matrix("output.weight", vocabSize, hiddenSize, mix.output);
  return { metadata: metadataOf(`${name} ${type} random`, size), tensors };
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
