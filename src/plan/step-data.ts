// The data of one step as one contiguous block: typed views over the arrays that the executor
// reads and writes (kernels/plan.zig: StepHeader). Made once at load and reused by every step.
import { maxLogitBiases, maxLogprobs, maxRepeatLastN } from "../sampling/parameters.ts";
import { maxAdapters } from "./adapters.ts";
import type { PlanLimits } from "./arena.ts";

const headerWords = 16;
const samplingWords = 16;
const sampledWords = 2 + 2 * maxLogprobs;

/** How one output row's token is chosen; see SamplingRow in kernels/plan.zig. */
export interface SamplingRow {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repeatPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** 64-bit seed as two words. */
  readonly seedLow: number;
  readonly seedHigh: number;
  readonly numLogprobs: number;
}

interface Scored {
  readonly tokenId: number;
  readonly logprob: number;
}

const headerField = {
  numTokens: 0,
  numOutputs: 1,
  numSequences: 2,
  blockTableStride: 3,
  cancelId: 14,
  adapterScales: 15,
} as const;

/** Order of the arrays; the offsets of all but the last are in the header from word 4 on. */
const arrayNames = [
  "tokenIds",
  "positions",
  "queryStarts",
  "kvLens",
  "blockTables",
  "outputRows",
  "sampling",
  "penaltyIds",
  "logitBiases",
  "sampled",
  "adapterScales",
] as const;

export class StepData {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly tokenIds: Int32Array;
  readonly positions: Int32Array;
  /** First token row of each sequence, and the number of rows at the end. */
  readonly queryStarts: Uint32Array;
  /** Cached length of each sequence after this step. */
  readonly kvLens: Uint32Array;
  /** `[numSequences, blockTableStride]` */
  readonly blockTables: Uint32Array;
  readonly blockTableStride: number;
  readonly outputRows: Uint32Array;
  /** `[maxAdapters, maxTokens]`: how much of each adapter a token row gets. */
  readonly adapterScales: Float32Array;
  readonly penaltyIds: Int32Array;
  readonly #maxTokens: number;
  readonly #header: Uint32Array;
  readonly #samplingWords: Uint32Array;
  readonly #samplingFloats: Float32Array;
  readonly #biasIds: Uint32Array;
  readonly #biasValues: Float32Array;
  readonly #sampledIds: Int32Array;
  readonly #sampledFloats: Float32Array;
  #numPenalties = 0;
  #numBiases = 0;

  constructor(limits: PlanLimits) {
    const { maxTokens, maxOutputs, maxSequences, maxBlocksPerSequence } = limits;
    const lengths: Record<(typeof arrayNames)[number], number> = {
      tokenIds: maxTokens,
      positions: maxTokens,
      queryStarts: maxSequences + 1,
      kvLens: maxSequences,
      blockTables: maxSequences * maxBlocksPerSequence,
      outputRows: maxOutputs,
      sampling: maxOutputs * samplingWords,
      penaltyIds: maxSequences * maxRepeatLastN,
      logitBiases: maxSequences * maxLogitBiases * 2,
      sampled: maxOutputs * sampledWords,
      adapterScales: maxAdapters * maxTokens,
    };
    const starts = new Map<string, number>();
    let words = headerWords;
    for (const name of arrayNames) {
      starts.set(name, words);
      words += Math.ceil(lengths[name] / 16) * 16;
    }
    const buffer = new ArrayBuffer(words * 4);
    const view = <T>(
      make: new (b: ArrayBuffer, o: number, n: number) => T,
      name: (typeof arrayNames)[number],
    ): T => new make(buffer, starts.get(name)! * 4, lengths[name]);
    this.bytes = new Uint8Array(buffer);
    this.#header = new Uint32Array(buffer, 0, headerWords);
    this.tokenIds = view(Int32Array, "tokenIds");
    this.positions = view(Int32Array, "positions");
    this.queryStarts = view(Uint32Array, "queryStarts");
    this.kvLens = view(Uint32Array, "kvLens");
    this.blockTables = view(Uint32Array, "blockTables");
    this.blockTableStride = maxBlocksPerSequence;
    this.outputRows = view(Uint32Array, "outputRows");
    this.adapterScales = view(Float32Array, "adapterScales");
    this.#maxTokens = maxTokens;
    this.penaltyIds = view(Int32Array, "penaltyIds");
    this.#samplingWords = view(Uint32Array, "sampling");
    this.#samplingFloats = view(Float32Array, "sampling");
    this.#biasIds = view(Uint32Array, "logitBiases");
    this.#biasValues = view(Float32Array, "logitBiases");
    this.#sampledIds = view(Int32Array, "sampled");
    this.#sampledFloats = view(Float32Array, "sampled");
    this.#header[headerField.blockTableStride] = maxBlocksPerSequence;
    arrayNames.forEach((name, index) => {
      const word = name === "adapterScales" ? headerField.adapterScales : 4 + index;
      this.#header[word] = starts.get(name)! * 4;
    });
  }

  get numTokens(): number {
    return this.#header[headerField.numTokens]!;
  }
  get numOutputs(): number {
    return this.#header[headerField.numOutputs]!;
  }
  get numSequences(): number {
    return this.#header[headerField.numSequences]!;
  }

  /** Starts a new step: counts to zero, no request may cancel it. */
  reset(): void {
    this.#header[headerField.numTokens] = 0;
    this.#header[headerField.numOutputs] = 0;
    this.#header[headerField.numSequences] = 0;
    this.#header[headerField.cancelId] = 0;
    this.#numPenalties = 0;
    this.#numBiases = 0;
  }

  /** The step stops once the session's cancel word holds this id; 0: none does. */
  get cancelId(): number {
    return this.#header[headerField.cancelId]!;
  }
  setCancelId(id: number): void {
    this.#header[headerField.cancelId] = id;
  }

  setCounts(numTokens: number, numOutputs: number, numSequences: number): void {
    this.#header[headerField.numTokens] = numTokens;
    this.#header[headerField.numOutputs] = numOutputs;
    this.#header[headerField.numSequences] = numSequences;
  }

  /** Sets the scales of the plan's adapters for `count` token rows from `row` on. */
  setAdapterScales(row: number, count: number, scales: Float32Array): void {
    for (let adapter = 0; adapter < scales.length; adapter++) {
      const first = adapter * this.#maxTokens + row;
      this.adapterScales.fill(scales[adapter]!, first, first + count);
    }
  }

  /** The scale of an adapter for a token row; for executors in TypeScript. */
  adapterScale(adapter: number, row: number): number {
    return this.adapterScales[adapter * this.#maxTokens + row]!;
  }

  /**
   * Sets how output row `row` is sampled. `drawIndex` counts the drawn tokens of the sequence;
   * `history[historyStart..historyEnd)` are the tokens that penalties apply to.
   */
  setSampling(
    row: number,
    sampling: SamplingRow,
    drawIndex: number,
    history: Int32Array,
    historyStart: number,
    historyEnd: number,
    biases: ReadonlyMap<number, number> | undefined,
  ): void {
    const at = row * samplingWords;
    const floats = this.#samplingFloats;
    const words = this.#samplingWords;
    floats[at] = sampling.temperature;
    floats[at + 1] = sampling.topP;
    floats[at + 2] = sampling.minP;
    floats[at + 3] = sampling.repeatPenalty;
    floats[at + 4] = sampling.presencePenalty;
    floats[at + 5] = sampling.frequencyPenalty;
    words[at + 6] = sampling.topK;
    words[at + 7] = sampling.seedLow;
    words[at + 8] = sampling.seedHigh;
    words[at + 9] = drawIndex;
    words[at + 10] = this.#numPenalties;
    words[at + 11] = historyEnd - historyStart;
    for (let i = historyStart; i < historyEnd; i++) {
      this.penaltyIds[this.#numPenalties++] = history[i]!;
    }
    words[at + 12] = this.#numBiases;
    words[at + 13] = biases?.size ?? 0;
    words[at + 14] = sampling.numLogprobs;
    if (biases === undefined) return;
    for (const [tokenId, value] of biases) {
      this.#biasIds[this.#numBiases * 2] = tokenId;
      this.#biasValues[this.#numBiases * 2 + 1] = value;
      this.#numBiases++;
    }
  }

  /** What `setSampling` wrote for `row`; for executors in TypeScript. */
  samplingOf(row: number): SamplingRow & {
    drawIndex: number;
    penaltyIds: Int32Array;
    logitBias: ReadonlyMap<number, number>;
  } {
    const at = row * samplingWords;
    const float = (index: number) => this.#samplingFloats[at + index]!;
    const word = (index: number) => this.#samplingWords[at + index]!;
    const logitBias = new Map<number, number>();
    for (let i = word(12); i < word(12) + word(13); i++) {
      logitBias.set(this.#biasIds[i * 2]!, this.#biasValues[i * 2 + 1]!);
    }
    return {
      temperature: float(0),
      topP: float(1),
      minP: float(2),
      repeatPenalty: float(3),
      presencePenalty: float(4),
      frequencyPenalty: float(5),
      topK: word(6),
      seedLow: word(7),
      seedHigh: word(8),
      drawIndex: word(9),
      penaltyIds: this.penaltyIds.subarray(word(10), word(10) + word(11)),
      logitBias,
      numLogprobs: word(14),
    };
  }

  /** Writes a sampling result; for executors in TypeScript. */
  setSampled(row: number, best: Scored, top: readonly Scored[]): void {
    const at = row * sampledWords;
    this.#sampledIds[at] = best.tokenId;
    this.#sampledFloats[at + 1] = best.logprob;
    top.forEach(({ tokenId, logprob }, rank) => {
      this.#sampledIds[at + 2 + rank] = tokenId;
      this.#sampledFloats[at + 2 + maxLogprobs + rank] = logprob;
    });
  }

  sampledId(row: number): number {
    return this.#sampledIds[row * sampledWords]!;
  }
  sampledLogprob(row: number): number {
    return this.#sampledFloats[row * sampledWords + 1]!;
  }
  topId(row: number, rank: number): number {
    return this.#sampledIds[row * sampledWords + 2 + rank]!;
  }
  topLogprob(row: number, rank: number): number {
    return this.#sampledFloats[row * sampledWords + 2 + maxLogprobs + rank]!;
  }
}
