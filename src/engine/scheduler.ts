// Decides which tokens the next step computes. Pure: sequences and blocks in, a batch out; no
// clock, no I/O, no tensors. Running sequences come first, then waiting ones, under one budget of
// tokens per step, so that long prompts enter in chunks beside decoding sequences.
import { blockSize } from "../plan/arena.ts";
import type { Batch } from "./batch.ts";
import type { BlockAllocator } from "./block-allocator.ts";
import type { Sequence } from "./sequence.ts";

export interface SchedulerLimits {
  /** Tokens of one step over all sequences. */
  readonly maxTokensPerStep: number;
  /** Sequences in one step. */
  readonly maxSequences: number;
}

export class Scheduler {
  readonly running: Sequence[] = [];
  readonly waiting: Sequence[] = [];
  numPreemptions = 0;
  readonly #limits: SchedulerLimits;
  readonly #allocator: BlockAllocator;

  constructor(limits: SchedulerLimits, allocator: BlockAllocator) {
    this.#limits = limits;
    this.#allocator = allocator;
  }

  get hasWork(): boolean {
    return this.running.length + this.waiting.length > 0;
  }

  add(sequence: Sequence): void {
    this.waiting.push(sequence);
  }

  /** Takes a sequence out, wherever it is, and frees its blocks. */
  remove(sequence: Sequence): void {
    for (const list of [this.running, this.waiting]) {
      const index = list.indexOf(sequence);
      if (index >= 0) list.splice(index, 1);
    }
    sequence.release(this.#allocator);
  }

  /** Fills `batch`; empty only when there is no work or no block for any of it. */
  schedule(batch: Batch): void {
    batch.clear();
    // Decoding sequences first: their tokens are few and someone is reading them.
    for (let i = 0; i < this.running.length; i++) {
      const sequence = this.running[i]!;
      if (sequence.isDecoding) this.#schedule(sequence, batch);
    }
    for (let i = 0; i < this.running.length; i++) {
      const sequence = this.running[i]!;
      if (!sequence.isDecoding) this.#schedule(sequence, batch);
    }
    this.#admit(batch);
  }

  /** Adds the sequence's next tokens; preempts newer sequences while blocks are missing. */
  #schedule(sequence: Sequence, batch: Batch): void {
    const budget = this.#limits.maxTokensPerStep - batch.numTokens;
    const count = Math.min(budget, sequence.numUncomputed);
    if (count === 0) return;
    while (!sequence.reserve(count, this.#allocator)) {
      const victim = this.running.at(-1)!;
      if (batch.sequences.includes(victim)) return; // Already in this step: wait for the next.
      this.#preempt(victim);
      if (victim === sequence) return;
    }
    batch.add(sequence, count);
  }

  /** All running sequences wait, in their order, and will be computed again. */
  preemptAll(): void {
    for (let victim = this.running.at(-1); victim !== undefined; victim = this.running.at(-1)) {
      this.#preempt(victim);
    }
  }

  /** Recompute later: the blocks go back, sealed ones usually survive in the prefix cache. */
  #preempt(sequence: Sequence): void {
    this.running.splice(this.running.indexOf(sequence), 1);
    sequence.release(this.#allocator);
    this.numPreemptions++;
    this.waiting.unshift(sequence);
  }

  #admit(batch: Batch): void {
    while (this.waiting.length > 0 && this.running.length < this.#limits.maxSequences) {
      const budget = this.#limits.maxTokensPerStep - batch.numTokens;
      if (budget <= 0) return;
      const sequence = this.waiting[0]!;
      sequence.adoptCachedPrefix(this.#allocator);
      const count = Math.min(budget, sequence.numUncomputed);
      // One spare block for each running sequence, so that admission does not preempt at once.
      const enough = this.#allocator.numAvailable >= this.#blocksFor(sequence, count);
      if (!enough || !sequence.reserve(count, this.#allocator)) {
        sequence.release(this.#allocator);
        return;
      }
      this.waiting.shift();
      this.running.push(sequence);
      batch.add(sequence, count);
    }
  }

  #blocksFor(sequence: Sequence, count: number): number {
    const needed = Math.ceil((sequence.numComputed + count) / blockSize) - sequence.blocks.length;
    return needed + this.running.length;
  }
}
