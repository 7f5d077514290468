// Shapes of well-known models, and files of that shape with random weights: what a benchmark needs
// of a model without downloading it.
import { nearestMatch, TinferError } from "../core/errors.ts";
import type { GgufValue } from "../weights/gguf-types.ts";
import type { GgufContent, GgufTensorSource } from "../weights/gguf-writer.ts";
import { tensorBytes } from "../weights/quant-types.ts";
import { findMix } from "../weights/quantize-mix.ts";
import { chooseTypes, type TypedTensor } from "../weights/quantize-types.ts";
import { RandomWeights } from "./random-weights.ts";

/** What a family has beside Llama's tensors, and the metadata that says it. */
interface FamilyParts {
  readonly qkvBiases?: true;
  /** Norms of query and key heads. */
  readonly headNorms?: true;
  /** Norms behind attention and MLP. */
  readonly postNorms?: true;
  readonly windowLen?: number;
}

const families = {
  llama: {},
  qwen2: { qkvBiases: true },
  qwen3: { headNorms: true },
  gemma3: { headNorms: true, postNorms: true, windowLen: 512 },
} as const satisfies Record<string, FamilyParts>;

export interface Shape {
  readonly family: keyof typeof families;
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
    family: "llama",
    ...{ contextLen: 131072, ropeTheta: 500000, tiedEmbedding: false },
    ...{ numExperts: 0, numExpertsPerToken: 0 },
  } as const;
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
  "qwen2.5-0.5b": shape([24, 896, 4864], [14, 2, 64], 151936, {
    ...{ family: "qwen2", contextLen: 32768, ropeTheta: 1e6, tiedEmbedding: true },
  }),
  "qwen2.5-7b": shape([28, 3584, 18944], [28, 4, 128], 152064, {
    ...{ family: "qwen2", contextLen: 32768, ropeTheta: 1e6 },
  }),
  "qwen3-0.6b": shape([28, 1024, 3072], [16, 8, 128], 151936, {
    ...{ family: "qwen3", contextLen: 40960, ropeTheta: 1e6, tiedEmbedding: true },
  }),
  "qwen3-4b": shape([36, 2560, 9728], [32, 8, 128], 151936, {
    ...{ family: "qwen3", contextLen: 40960, ropeTheta: 1e6, tiedEmbedding: true },
  }),
  "gemma-3-1b": shape([26, 1152, 6912], [4, 1, 256], 262144, {
    ...{ family: "gemma3", contextLen: 32768, ropeTheta: 1e6, tiedEmbedding: true },
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

export const shapeNames = Object.keys(shapes);

function findShape(name: string): Shape {
  const found = shapes[name];
  if (found !== undefined) return found;
  const nearest = nearestMatch(name, shapeNames);
  throw new TinferError("usage", `shape '${name}' is not known`, {
    hint: `known are ${shapeNames.join(", ")}${nearest ? `; nearest: ${nearest}` : ""}`,
  });
}

/** A model of the shape with random weights and without a vocabulary. */
export function randomModel(name: string, type: string, seed = 1): GgufContent {
  const size = findShape(name);
  const tensors = tensorsOf(size);
  const headsPerKvHead = size.numHeads / size.numKvHeads;
  const types = chooseTypes(tensors, { ...size, headsPerKvHead }, { mix: findMix(type) });
  const weights = new RandomWeights(seed);
  const sources = tensors.map(({ name, shape }, index): GgufTensorSource => {
    if (shape.length === 1) {
      const values = new Float32Array(shape[0]!).fill(name.endsWith(".bias") ? 0 : 1);
      return { name, type: "f32", shape, content: new Uint8Array(values.buffer) };
    }
    const { type } = types.get(name)!;
    const bytes = tensorBytes(type, shape);
    const content = () => weights.blocks(type, bytes, shape.at(-1)!, index);
    return { name, type, shape, content };
  });
  return { metadata: metadataOf(`${name} ${type} random`, size), tensors: sources };
}

/** Norms and biases have one dimension, matrices two, stacks of experts three. */
function tensorsOf(size: Shape): TypedTensor[] {
  const { hiddenSize, intermediateSize, headDim, vocabSize, numExperts } = size;
  const { qkvBiases, headNorms, postNorms }: FamilyParts = families[size.family];
  const kvWidth = size.numKvHeads * headDim;
  const qWidth = size.numHeads * headDim;
  const tensors: TypedTensor[] = [];
  const tensor = (name: string, ...shape: number[]) =>
    tensors.push({ name: `${name}.weight`, type: "f32", shape });
  tensor("token_embd", vocabSize, hiddenSize);
  for (let layer = 0; layer < size.numLayers; layer++) {
    const part = (name: string, ...shape: number[]) => tensor(`blk.${layer}.${name}`, ...shape);
    part("attn_norm", hiddenSize);
    for (const [name, width] of [
      ["attn_q", qWidth],
      ["attn_k", kvWidth],
      ["attn_v", kvWidth],
    ] as const) {
      part(name, width, hiddenSize);
      if (qkvBiases)
        tensors.push({ name: `blk.${layer}.${name}.bias`, type: "f32", shape: [width] });
    }
    part("attn_output", hiddenSize, qWidth);
    if (headNorms) {
      part("attn_q_norm", headDim);
      part("attn_k_norm", headDim);
    }
    part("ffn_norm", hiddenSize);
    if (postNorms) {
      part("post_attention_norm", hiddenSize);
      part("post_ffw_norm", hiddenSize);
    }
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
  const { family } = size;
  const { windowLen = 0 }: FamilyParts = families[family];
  return [
    ["general.architecture", text(family)],
    ["general.name", text(name)],
    [`${family}.block_count`, u32(size.numLayers)],
    [`${family}.context_length`, u32(size.contextLen)],
    [`${family}.embedding_length`, u32(size.hiddenSize)],
    [`${family}.feed_forward_length`, u32(size.intermediateSize)],
    [`${family}.attention.head_count`, u32(size.numHeads)],
    [`${family}.attention.head_count_kv`, u32(size.numKvHeads)],
    [`${family}.attention.key_length`, u32(size.headDim)],
    [`${family}.attention.value_length`, u32(size.headDim)],
    [`${family}.attention.layer_norm_rms_epsilon`, f32(1e-5)],
    [`${family}.rope.dimension_count`, u32(size.headDim)],
    [`${family}.rope.freq_base`, f32(size.ropeTheta)],
    [`${family}.attention.sliding_window`, u32(windowLen)],
    [`${family}.vocab_size`, u32(size.vocabSize)],
    [`${family}.expert_count`, u32(size.numExperts)],
    [`${family}.expert_used_count`, u32(size.numExpertsPerToken)],
    ["tokenizer.ggml.model", text("no_vocab")],
  ];
}
