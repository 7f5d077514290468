// Turns a batch into the step's arrays and runs it on the loaded plan. The only part of the
// engine that touches step data.
import type { Session } from "../backend/backend.ts";
import type { Batch } from "./batch.ts";
import type { Sequence } from "./sequence.ts";

export class ModelRunner {
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  /**
   * Runs one step; false: request `cancelId` (0: none) stopped it, as if it had not begun. Sampled
   * tokens are then read by `session.stepData.sampledId(row)`, rows counted over the batch's
   * sequences that yield a token.
   */
  run(batch: Batch, cancelId: number): boolean {
    const step = this.#session.stepData;
    step.reset();
    let row = 0;
    let outputs = 0;
    for (let s = 0; s < batch.sequences.length; s++) {
      const sequence = batch.sequences[s]!;
      const count = batch.counts[s]!;
      step.queryStarts[s] = row;
      step.kvLens[s] = sequence.numComputed + count;
      step.setAdapterScales(row, count, sequence.adapted.scales);
      this.#setBlocks(s, sequence);
      for (let i = 0; i < count; i++) {
        const position = sequence.numComputed + i;
        step.tokenIds[row] = sequence.tokens[position]!;
        step.positions[row] = position;
        row++;
      }
      if (batch.yieldsToken(s)) {
        step.outputRows[outputs] = row - 1;
        this.#setSampling(outputs, sequence);
        outputs++;
      }
    }
    step.queryStarts[batch.sequences.length] = row;
    step.setCounts(row, outputs, batch.sequences.length);
    step.setCancelId(cancelId);
    return this.#session.run();
  }

  #setBlocks(index: number, sequence: Sequence): void {
    const { blockTables, blockTableStride } = this.#session.stepData;
    const start = index * blockTableStride;
    for (let i = 0; i < sequence.blocks.length; i++) blockTables[start + i] = sequence.blocks[i]!;
  }

  #setSampling(row: number, sequence: Sequence): void {
    const { numTokens, repeatLastN, completionLen } = sequence;
    const historyStart = Math.max(0, numTokens - repeatLastN);
    this.#session.stepData.setSampling(
      row,
      sequence.sampling,
      completionLen,
      sequence.tokens,
      historyStart,
      numTokens,
      sequence.logitBias,
    );
  }
}
