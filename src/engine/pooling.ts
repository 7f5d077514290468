// From the hidden states of a text's tokens to its embedding.
import { TinferError } from "../core/errors.ts";
import type { LoadedModelFacts } from "./client.ts";

/** `none`: the states themselves, one vector per token. */
export const poolings = ["mean", "cls", "last", "none"] as const;
export type VectorPooling = (typeof poolings)[number];
/** `rank`: the scores of a model that ranks texts, one per label. */
export type Pooling = VectorPooling | "rank";

/** The pooling asked for, else the model's own; models that were not made for embeddings: mean. */
export function poolingOf(
  { pooling = "mean" }: Pick<LoadedModelFacts, "pooling">,
  asked?: VectorPooling,
): VectorPooling {
  if (asked !== undefined) return asked;
  if (pooling !== "rank") return pooling;
  throw new TinferError("unsupported", "the model ranks pairs of texts: it makes no embeddings", {
    hint:
      "send a query and documents to POST /v1/rerank of tinfer serve; " +
      `its hidden states can still be pooled by tinfer embed --pooling ${poolings.join("|")}`,
  });
}

/** Pools states that come in pieces, in order. */
export class Pooler {
  readonly #pooling: VectorPooling;
  readonly #width: number;
  /** `[numTokens, width]` for `none`, else `[width]` */
  readonly #result: Float32Array;
  readonly #sum: Float64Array;
  #numTokens = 0;

  constructor(pooling: VectorPooling, width: number, numTokens: number) {
    this.#pooling = pooling;
    this.#width = width;
    this.#result = new Float32Array(pooling === "none" ? width * numTokens : width);
    this.#sum = new Float64Array(width);
  }

  /** `[numTokens, width]` */
  add(states: Float32Array): void {
    const width = this.#width;
    const start = this.#numTokens * width;
    if (this.#pooling === "none") this.#result.set(states, start);
    if (this.#pooling === "cls" && start === 0) this.#result.set(states.subarray(0, width));
    if (this.#pooling === "last") this.#result.set(states.subarray(states.length - width));
    if (this.#pooling === "mean") {
      for (let i = 0; i < states.length; i++) this.#sum[i % width]! += states[i]!;
    }
    this.#numTokens += states.length / width;
  }

  result(): Float32Array {
    if (this.#pooling === "mean") {
      this.#result.set(this.#sum.map((value) => value / this.#numTokens));
    }
    return this.#result;
  }
}

/** Rows of `width` values, each of length 1; a row of zeroes has no direction and stays. */
export function normalizeRows(rows: Float32Array, width: number): Float32Array {
  const normalized = new Float32Array(rows.length);
  for (let start = 0; start < rows.length; start += width) {
    const row = rows.subarray(start, start + width);
    const length = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
    normalized.set(length === 0 ? row : row.map((value) => value / length), start);
  }
  return normalized;
}
