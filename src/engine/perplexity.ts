// How well a model predicts a text, and how far its predictions are from another's. The text is
// cut into chunks; the second half of each is scored, so that every prediction has some context:
// the definition that llama-perplexity uses.
import { assert, TinferError } from "../core/errors.ts";
import type { ModelOptions } from "./options.ts";
import { type LogitsReader, LogitsWriter, SavedRow, scoredLen } from "./saved-logits.ts";
import { ChunkRunner, countChunks } from "./text-chunks.ts";

/** A mean and its standard error. */
export interface Estimate {
  readonly value: number;
  readonly error: number;
}

export interface Divergence {
  /** KL(base ‖ model) in nats per position. */
  readonly mean: Estimate;
  readonly median: number;
  readonly percentile99: number;
  readonly percentile999: number;
  readonly max: number;
  /** Share of positions whose best token is the same. */
  readonly topAgreement: number;
  readonly basePerplexity: Estimate;
  /** Perplexity over the base's. */
  readonly perplexityRatio: Estimate;
  /** Root mean square of the difference in the right token's probability. */
  readonly rmsProbabilityDifference: number;
}

export interface PerplexityResult {
  readonly perplexity: Estimate;
  readonly chunkLen: number;
  readonly numChunks: number;
  readonly numScored: number;
  readonly divergence: Divergence | undefined;
}

export interface PerplexityOptions {
  readonly chunkLen: number;
  /** Most chunks; undefined = all of the text. */
  readonly numChunks: number | undefined;
  readonly bosId: number | undefined;
  readonly saveTo: string | undefined;
  readonly base: LogitsReader | undefined;
}

export interface PerplexityProgress {
  readonly numChunksDone: number;
  readonly numChunks: number;
  /** So far. */
  readonly perplexity: number;
}

/** Sums over scored positions; `base` is what the saved logits say of the same position. */
class Score {
  readonly divergences: number[] = [];
  #count = 0;
  #loss = 0;
  #loss2 = 0;
  #baseLoss = 0;
  #baseLoss2 = 0;
  #product = 0;
  #difference2 = 0;
  #numSameTop = 0;

  add(loss: number): void {
    this.#count++;
    this.#loss += loss;
    this.#loss2 += loss * loss;
  }

  /** Log probabilities are `logits[i] - logSum`; the losses are of the token that came. */
  compare(
    logits: Float32Array,
    logSum: number,
    [loss, baseLoss]: readonly [number, number],
    base: SavedRow,
  ): void {
    this.#baseLoss += baseLoss;
    this.#baseLoss2 += baseLoss * baseLoss;
    this.#product += loss * baseLoss;
    this.#difference2 += (Math.exp(-loss) - Math.exp(-baseLoss)) ** 2;
    let divergence = 0;
    let [top, baseTop] = [0, 0];
    for (let i = 0; i < logits.length; i++) {
      if (logits[i]! > logits[top]!) top = i;
      if (base.words[4 + i]! > base.words[4 + baseTop]!) baseTop = i;
      const baseLog = base.logProbability(i);
      if (baseLog > -16) divergence += Math.exp(baseLog) * (baseLog - (logits[i]! - logSum));
    }
    if (top === baseTop) this.#numSameTop++;
    this.divergences.push(divergence);
  }

  get numScored(): number {
    return this.#count;
  }

  get perplexity(): Estimate {
    return exponential(estimate(this.#loss, this.#loss2, this.#count));
  }

  get divergence(): Divergence {
    const sorted = Float64Array.from(this.divergences).sort();
    const count = this.#count;
    const own = estimate(this.#loss, this.#loss2, count);
    const base = estimate(this.#baseLoss, this.#baseLoss2, count);
    // Both were measured at the same positions: most of their errors is common.
    const covariance = (this.#product / count - own.value * base.value) / Math.max(1, count - 1);
    const error = Math.sqrt(Math.max(0, own.error ** 2 + base.error ** 2 - 2 * covariance));
    let [sum, sum2] = [0, 0];
    for (const value of sorted) {
      sum += value;
      sum2 += value * value;
    }
    return {
      mean: estimate(sum, sum2, count),
      median: percentile(sorted, 0.5),
      percentile99: percentile(sorted, 0.99),
      percentile999: percentile(sorted, 0.999),
      max: sorted.at(-1)!,
      topAgreement: this.#numSameTop / count,
      basePerplexity: exponential(base),
      perplexityRatio: exponential({ value: own.value - base.value, error }),
      rmsProbabilityDifference: Math.sqrt(this.#difference2 / count),
    };
  }
}

function estimate(sum: number, sumOfSquares: number, count: number): Estimate {
  const value = sum / count;
  const variance = Math.max(0, sumOfSquares / count - value * value);
  return { value, error: count > 1 ? Math.sqrt(variance / (count - 1)) : 0 };
}

function exponential({ value, error }: Estimate): Estimate {
  return { value: Math.exp(value), error: Math.exp(value) * error };
}

/** Between the two nearest of the sorted values. */
function percentile(sorted: Float64Array, fraction: number): number {
  const place = fraction * (sorted.length - 1);
  const below = sorted[Math.floor(place)]!;
  return below + (sorted[Math.ceil(place)]! - below) * (place - Math.floor(place));
}

/** log Σ exp(logits) */
function logSumExp(logits: Float32Array): number {
  let most = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > most) most = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return most + Math.log(sum);
}

/** Yields after every chunk; the last value is returned. */
export function* measurePerplexity(
  path: string,
  modelOptions: ModelOptions,
  tokenIds: Int32Array,
  options: PerplexityOptions,
): Generator<PerplexityProgress | undefined, PerplexityResult> {
  const { chunkLen, base } = options;
  const numChunks = countChunks(tokenIds, chunkLen, options.numChunks);
  using runner = new ChunkRunner(path, modelOptions, options);
  const { plan, session, facts } = runner.model;
  const { vocabSize } = facts;
  requireVocabulary(base, vocabSize);
  using writer =
    options.saveTo === undefined
      ? undefined
      : new LogitsWriter(options.saveTo, { chunkLen, vocabSize, numChunks, tokenIds });
  const { logits } = plan;
  assert(logits !== undefined, "the plan ends in logits");
  const [row, baseRow] = [new SavedRow(vocabSize), new SavedRow(vocabSize)];
  const score = new Score();
  for (let chunk = 0; chunk < numChunks; chunk++) {
    for (const { first, count } of runner.run(tokenIds, chunk, Math.floor(chunkLen / 2))) {
      const values = count > 0 ? session.readTensor(logits) : undefined;
      // The last position of a chunk predicts what is not in it.
      for (let i = 0; i < Math.min(count, chunkLen - 1 - first); i++) {
        const own = values!.subarray(i * vocabSize, (i + 1) * vocabSize);
        const target = tokenIds[chunk * chunkLen + first + i + 1]!;
        const logSum = logSumExp(own);
        const loss = logSum - own[target]!;
        if (writer !== undefined) {
          row.set(own, logSum);
          writer.write(row, loss);
        }
        if (base !== undefined) {
          base.read(baseRow);
          const exact = base.losses?.[score.numScored];
          const losses = [loss, exact ?? -baseRow.logProbability(target)] as const;
          score.compare(own, logSum, losses, baseRow);
        }
        score.add(loss);
      }
      yield undefined;
    }
    yield { numChunksDone: chunk + 1, numChunks, perplexity: score.perplexity.value };
  }
  writer?.finish();
  assert(score.numScored === numChunks * scoredLen(chunkLen), "every position is scored");
  const divergence = base === undefined ? undefined : score.divergence;
  const { perplexity, numScored } = score;
  return { perplexity, chunkLen, numChunks, numScored, divergence };
}

function requireVocabulary(base: LogitsReader | undefined, vocabSize: number): void {
  if (base === undefined || base.header.vocabSize === vocabSize) return;
  const text = `the saved logits are over ${base.header.vocabSize} tokens, the model has ${vocabSize}`;
  throw new TinferError("usage", text, { hint: "compare models of one vocabulary" });
}
