// The tokens of one step: which sequences take part and how many of their tokens. Reused.
import type { Sequence } from "./sequence.ts";

export class Batch {
  readonly sequences: Sequence[] = [];
  /** Tokens of each sequence in this step. */
  readonly counts: number[] = [];
  numTokens = 0;

  clear(): void {
    this.sequences.length = 0;
    this.counts.length = 0;
    this.numTokens = 0;
  }

  add(sequence: Sequence, count: number): void {
    this.sequences.push(sequence);
    this.counts.push(count);
    this.numTokens += count;
  }

  /** True when the step computes the sequence's last token, so that it yields logits. */
  yieldsToken(index: number): boolean {
    return this.counts[index] === this.sequences[index]!.numUncomputed;
  }
}
