// Sizes of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) in tinfer's own words.
import { type ConfigReader, limits } from "./config-reader.ts";

export interface LatentConfig {
  /** Width of the latent vector that keys and values are made from; it is what the cache keeps. */
  readonly kvRank: number;
  /** Width of the queries' latent vector; undefined: they have none. */
  readonly queryRank: number | undefined;
  /** Width of a head's query and key, the rotated part included, as the model was trained. */
  readonly headDim: number;
  readonly valueDim: number;
}

/** Undefined where the file has no latent attention. */
export function readLatentConfig(
  reader: ConfigReader,
  plain: { headDim: number; valueDim: number },
): LatentConfig | undefined {
  const kvRank = reader.count("attention.kv_lora_rank", limits.width, 0);
  if (!kvRank) return undefined;
  return {
    kvRank,
    queryRank: reader.count("attention.q_lora_rank", limits.width, 0) || undefined,
    // Files of 2025 on state the absorbed head under the plain keys, the trained one under these.
    headDim: reader.count("attention.key_length_mla", limits.width, 0) || plain.headDim,
    valueDim: reader.count("attention.value_length_mla", limits.width, 0) || plain.valueDim,
  };
}
