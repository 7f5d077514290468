// What the quantisation mixes want to know of a model file, also of one whose architecture tinfer
// cannot run: absent or strange keys then count as one head per KV head and no experts.
import type { Metadata } from "../weights/metadata.ts";
import type { MixFacts } from "../weights/quantize-types.ts";

export function readMixFacts(metadata: Metadata): MixFacts {
  const architecture = metadata.get("general.architecture");
  /** The number, or the first layer's. */
  const number = (suffix: string): number | undefined => {
    const value = metadata.get(`${architecture}.${suffix}`);
    const first = ArrayBuffer.isView(value) ? (value as Int32Array)[0] : value;
    return typeof first === "number" && first > 0 ? first : undefined;
  };
  const numHeads = number("attention.head_count") ?? 1;
  const numKvHeads = number("attention.head_count_kv") ?? numHeads;
  return {
    numLayers: number("block_count") ?? 0,
    headsPerKvHead: Math.floor(numHeads / numKvHeads),
    numExperts: number("expert_count") ?? 0,
  };
}
