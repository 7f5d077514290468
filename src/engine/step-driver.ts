// Drives a session directly, without scheduler or sampling settings: fixed sequences whose blocks
// lie one after another. For logits, hidden states and benchmarks.
import type { Session } from "../backend/backend.ts";
import { TinferError } from "../core/errors.ts";
import { blockSize } from "../plan/arena.ts";
import type { SamplingRow } from "../plan/step-data.ts";

/** Which rows of a step yield outputs. */
export type OutputRows = "all" | "last" | "none";

const greedy: SamplingRow = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seedLow: 0,
  seedHigh: 0,
  numLogprobs: 0,
};

/** Tokens `start` to `start + count` of a sequence. */
export interface StepPart {
  readonly tokenIds: ArrayLike<number>;
  readonly start: number;
  readonly count: number;
}

export class StepDriver {
  readonly #session: Session;
  readonly #blocksPerSequence: number;
  #numRows = 0;
  #numOutputs = 0;

  /** `contextLen` bounds each of the sequences that will be run. */
  constructor(session: Session, contextLen: number) {
    this.#session = session;
    this.#blocksPerSequence = Math.ceil(contextLen / blockSize);
  }

  /**
   * Runs `tokenIds[start..start + count)` of `numSequences` equal sequences whose first `start`
   * tokens are in the cache already.
   */
  run(
    tokenIds: ArrayLike<number>,
    start: number,
    count: number,
    outputs: OutputRows,
    numSequences = 1,
  ): void {
    this.#begin();
    for (let s = 0; s < numSequences; s++) {
      this.#add(s, tokenIds, start, count, s * this.#blocksPerSequence, outputs);
    }
    this.#end(numSequences);
  }

  /**
   * Runs parts of different sequences, all rows of which are outputs. The first tokens of a part
   * are in the cache if it was, and is, the first of its step; others begin at 0.
   */
  runParts(parts: readonly StepPart[], cancelId = 0): void {
    this.#begin();
    this.#session.stepData.setCancelId(cancelId);
    let firstBlock = 0;
    for (let s = 0; s < parts.length; s++) {
      const { tokenIds, start, count } = parts[s]!;
      firstBlock += this.#add(s, tokenIds, start, count, firstBlock, "all");
    }
    this.#end(parts.length);
  }

  #begin(): void {
    this.#session.stepData.reset();
    this.#numRows = 0;
    this.#numOutputs = 0;
  }

  /** Adds a sequence whose blocks lie from `firstBlock` on; returns how many they are. */
  #add(
    index: number,
    tokenIds: ArrayLike<number>,
    start: number,
    count: number,
    firstBlock: number,
    outputs: OutputRows,
  ): number {
    const step = this.#session.stepData;
    step.queryStarts[index] = this.#numRows;
    step.kvLens[index] = start + count;
    for (let i = 0; i < count; i++) {
      const row = this.#numRows++;
      step.tokenIds[row] = tokenIds[start + i]!;
      step.positions[row] = start + i;
      if (outputs !== "all" && !(outputs === "last" && i === count - 1)) continue;
      step.outputRows[this.#numOutputs] = row;
      step.setSampling(this.#numOutputs++, greedy, 0, step.tokenIds, 0, 0, undefined);
    }
    const numBlocks = Math.ceil((start + count) / blockSize);
    const table = index * step.blockTableStride;
    for (let block = 0; block < numBlocks; block++) {
      step.blockTables[table + block] = firstBlock + block;
    }
    return numBlocks;
  }

  #end(numSequences: number): void {
    const step = this.#session.stepData;
    step.queryStarts[numSequences] = this.#numRows;
    step.setCounts(this.#numRows, this.#numOutputs, numSequences);
    if (!this.#session.run()) throw new TinferError("cancelled", "interrupted");
  }
}
