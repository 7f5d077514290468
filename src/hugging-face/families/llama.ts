// Llama, Mistral, Mixtral and what shares their tensors: GGUF's llama architecture.
import type { DerivedTensor } from "../../weights/model-header.ts";
import { derivedTensor } from "../../weights/rows.ts";
import { ropeParameters, ropeType } from "../common.ts";
import { headDim, interleavePairs, numHeads, numKvHeads } from "../conversions.ts";
import type { FolderFamily, Targets } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import type { MetadataValues } from "../metadata-values.ts";

export const interleavedNames: Readonly<Record<string, Targets>> = {
  "self_attn.q_proj": { to: "attn_q", convert: interleavePairs(numHeads) },
  "self_attn.k_proj": { to: "attn_k", convert: interleavePairs(numKvHeads) },
};

/** Llama 3.1 stretches frequencies by what lies in a tensor of its own in GGUF. */
export function llama3Factors(config: JsonObject): DerivedTensor[] {
  const rope = ropeParameters(config);
  if (rope === undefined || ropeType(rope) !== "llama3") return [];
  const theta = rope.number("rope_theta") ?? config.number("rope_theta") ?? 10000;
  const factor = rope.number("factor") ?? 8;
  const low = rope.number("low_freq_factor") ?? 1;
  const high = rope.number("high_freq_factor") ?? 4;
  const original = rope.number("original_max_position_embeddings") ?? 8192;
  const dim = headDim(config);
  const factors = Float32Array.from({ length: dim / 2 }, (_, i) => {
    const frequency = 1 / Math.fround(theta ** ((2 * i) / dim));
    const waveLen = (2 * Math.PI) / frequency;
    if (waveLen < original / high) return 1;
    if (waveLen > original / low) return factor;
    const smooth = (original / waveLen - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
  const read = () => new Uint8Array(factors.slice().buffer);
  const rows = { type: "f32" as const, numRows: 1, cols: factors.length, read };
  return [derivedTensor("rope_freqs.weight", "f32", [factors.length], rows)];
}

export const mixtralNames: Readonly<Record<string, Targets>> = {
  "block_sparse_moe.gate": "ffn_gate_inp",
  "block_sparse_moe.experts.#.w1": "ffn_gate.#",
  "block_sparse_moe.experts.#.w3": "ffn_up.#",
  "block_sparse_moe.experts.#.w2": "ffn_down.#",
};

const rotatesWholeHeads = (config: JsonObject, values: MetadataValues) =>
  values.u32("rope.dimension_count", headDim(config));

export const llama: FolderFamily = {
  modelTypes: ["llama", "mistral", "mixtral"],
  architecture: "llama",
  metadata: rotatesWholeHeads,
  names: { ...interleavedNames, ...mixtralNames },
  extraTensors: llama3Factors,
};

/** Layers without positions are a constant of the family. */
export const smolLm3: FolderFamily = {
  modelTypes: ["smollm3"],
  architecture: "smollm3",
  metadata: rotatesWholeHeads,
  names: interleavedNames,
};

export const ministral3: FolderFamily = {
  modelTypes: ["ministral3"],
  architecture: "mistral3",
  metadata: (config, values) => {
    rotatesWholeHeads(config, values);
    const rope = ropeParameters(config);
    values.f32("rope.scaling.yarn_log_multiplier", rope?.number("mscale_all_dim"));
    values.f32("attention.temperature_scale", rope?.number("llama_4_scaling_beta"));
  },
  names: interleavedNames,
};
