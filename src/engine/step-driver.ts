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

export class StepDriver {
  readonly #session: Session;
  readonly #blocksPerSequence: number;

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
    const step = this.#session.stepData;
    step.reset();
    let numOutputs = 0;
    for (let s = 0; s < numSequences; s++) {
      for (let i = 0; i < count; i++) {
        const row = s * count + i;
        step.tokenIds[row] = tokenIds[start + i]!;
        step.positions[row] = start + i;
        if (outputs !== "all" && !(outputs === "last" && i === count - 1)) continue;
        step.outputRows[numOutputs] = row;
        step.setSampling(numOutputs++, greedy, 0, step.tokenIds, 0, 0, undefined);
      }
      step.queryStarts[s] = s * count;
      step.kvLens[s] = start + count;
      const numBlocks = Math.ceil((start + count) / blockSize);
      for (let block = 0; block < numBlocks; block++) {
        step.blockTables[s * step.blockTableStride + block] = s * this.#blocksPerSequence + block;
      }
    }
    step.queryStarts[numSequences] = numSequences * count;
    step.setCounts(numSequences * count, numOutputs, numSequences);
    if (!this.#session.run()) throw new TinferError("cancelled", "interrupted");
  }
}
