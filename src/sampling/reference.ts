// The sampler in plain form, in double precision: what the native op is checked against. It sorts
// the whole vocabulary and is meant to be read, not to be fast.
import { uniform } from "./philox.ts";

/** How the token of one output row is chosen; the meaning of each is in parameters.ts. */
export interface ReferenceRow {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repeatPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly seedLow: number;
  readonly seedHigh: number;
  /** Index of the drawn token in its sequence. */
  readonly drawIndex: number;
  /** The tokens that penalties look at, as often as they occur. */
  readonly penaltyIds: ArrayLike<number>;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly numLogprobs: number;
}

export interface TokenLogprob {
  /** -1 where no token can be chosen: every logit is NaN or -Infinity. */
  readonly tokenId: number;
  /** ln of the token's probability under the softmax of the raw logits. */
  readonly logprob: number;
}

export interface ReferenceSample extends TokenLogprob {
  /** The best tokens by raw logit, of equal ones the lower id first. */
  readonly top: readonly TokenLogprob[];
}

const largest = Math.fround(3.4028234663852886e38);

/**
 * Stages in order: bias, penalties, top-k, top-p, min-p, temperature, draw. A NaN logit counts as
 * -Infinity, +Infinity as the largest 32-bit float. `logits` `[vocabSize]` is not changed.
 */
export function sampleReference(logits: Float32Array, row: ReferenceRow): ReferenceSample {
  const raw = bounded(logits);
  const best = rankedIds(raw);
  const logprobOf = logprobs(raw, best);
  const top = best
    .slice(0, row.numLogprobs)
    .map((tokenId) => ({ tokenId, logprob: logprobOf(tokenId) }));

  const adjusted = bounded(adjustLogits(logits, row));
  const kept = keepTokens(adjusted, row);
  if (kept.length === 0) return { tokenId: -1, logprob: -Infinity, top };
  const tokenId =
    Math.fround(row.temperature) > 0
      ? drawToken(
          adjusted,
          kept,
          row.temperature,
          uniform(row.seedLow, row.seedHigh, row.drawIndex),
        )
      : kept[0]!;
  return { tokenId, logprob: logprobOf(tokenId), top };
}

/** Logits with bias and penalties, rounded to 32 bits after each operation as the op does. */
export function adjustLogits(logits: Float32Array, row: ReferenceRow): Float32Array {
  const { fround } = Math;
  const adjusted = logits.slice();
  for (const [tokenId, bias] of row.logitBias) adjusted[tokenId]! += fround(bias);
  const counts = new Map<number, number>();
  for (const id of Array.from(row.penaltyIds)) counts.set(id, (counts.get(id) ?? 0) + 1);
  const repeat = fround(row.repeatPenalty);
  for (const [tokenId, count] of counts) {
    const logit = adjusted[tokenId]!;
    const repeated = fround(logit > 0 ? logit / repeat : logit * repeat);
    const frequency = fround(count * fround(row.frequencyPenalty));
    adjusted[tokenId] = repeated - fround(frequency + fround(row.presencePenalty));
  }
  return adjusted;
}

/** Ids that top-k, top-p and min-p keep: a prefix of the order of `rankedIds`. */
export function keepTokens(
  logits: Float32Array,
  row: Pick<ReferenceRow, "topK" | "topP" | "minP">,
): number[] {
  let kept = rankedIds(logits);
  if (kept.length === 0) return kept;
  const max = logits[kept[0]!]!;
  if (row.topK > 0) kept = kept.slice(0, row.topK);
  const topP = Math.fround(row.topP);
  if (topP < 1) {
    const weights = kept.map((id) => Math.exp(logits[id]! - max));
    const wanted = topP * weights.reduce((sum, weight) => sum + weight, 0);
    let reached = 0;
    let count = 0;
    while (count < kept.length && (count === 0 || reached < wanted)) reached += weights[count++]!;
    kept = kept.slice(0, count);
  }
  const minP = Math.fround(row.minP);
  if (minP > 0) {
    const minLogit = max + Math.log(minP);
    kept = kept.filter((id) => logits[id]! >= minLogit);
  }
  return kept;
}

/** Draws one of `ids`, walking them in ascending order; `random` in [0, 1). */
export function drawToken(
  logits: Float32Array,
  ids: readonly number[],
  temperature: number,
  random: number,
): number {
  const ordered = ids.toSorted((a, b) => a - b);
  const max = ids.reduce((best, id) => Math.max(best, logits[id]!), -Infinity);
  const divisor = Math.fround(temperature);
  const weights = ordered.map((id) => Math.exp((logits[id]! - max) / divisor));
  const target = random * weights.reduce((sum, weight) => sum + weight, 0);
  let reached = 0;
  let drawn = 0;
  for (let i = 0; i < ordered.length && reached <= target; i++) {
    if (weights[i] === 0) continue;
    drawn = i;
    reached += weights[i]!;
  }
  return ordered[drawn]!;
}

/** Ids of all logits above -Infinity: larger logit first, then lower id. */
function rankedIds(logits: Float32Array): number[] {
  const ids: number[] = [];
  for (let id = 0; id < logits.length; id++) if (logits[id]! > -Infinity) ids.push(id);
  return ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
}

function bounded(logits: Float32Array): Float32Array {
  return logits.map((logit) => (Number.isNaN(logit) ? -Infinity : Math.min(logit, largest)));
}

/** ln of the probability of each token under the softmax of `logits`. */
function logprobs(logits: Float32Array, ranked: readonly number[]): (tokenId: number) => number {
  const max = logits[ranked[0] ?? 0]!;
  const logTotal = Math.log(ranked.reduce((sum, id) => sum + Math.exp(logits[id]! - max), 0));
  return (id) => (logits[id]! > -Infinity ? Math.fround(logits[id]! - max - logTotal) : -Infinity);
}
