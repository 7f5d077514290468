// The state of one request being generated: its tokens, what of them is computed, its blocks.
import { blockSize } from "../plan/arena.ts";
import type { SamplingRow } from "../plan/step-data.ts";
import type { BlockAllocator } from "./block-allocator.ts";

/** How adapters enter a sequence. */
export interface Adapted {
  /** One scale for each of the plan's adapters. */
  readonly scales: Float32Array;
  /** Negative; sequences with another one share no cached block with it. */
  readonly cacheRoot: number;
}

const notAdapted: Adapted = { scales: new Float32Array(0), cacheRoot: -1 };

export class Sequence {
  readonly id: number;
  /** Prompt and completion, `[numTokens]` of a buffer of the final size. */
  readonly tokens: Int32Array;
  readonly promptLen: number;
  readonly maxTokens: number;
  readonly sampling: SamplingRow;
  readonly repeatLastN: number;
  readonly logitBias: ReadonlyMap<number, number> | undefined;
  readonly adapted: Adapted;
  numTokens: number;
  /** Tokens whose keys and values are in the cache. */
  numComputed = 0;
  /** Prompt tokens that the prefix cache provided at the last admission. */
  numCached = 0;
  readonly blocks: number[] = [];
  /** Blocks of `blocks` that are sealed. */
  numSealed = 0;

  constructor(
    id: number,
    prompt: Int32Array,
    limits: { maxTokens: number; maxContextLen: number },
    sampling: SamplingRow,
    penalties: { repeatLastN: number; logitBias: ReadonlyMap<number, number> | undefined },
    adapted: Adapted = notAdapted,
  ) {
    this.id = id;
    this.promptLen = prompt.length;
    this.numTokens = prompt.length;
    this.maxTokens = Math.min(limits.maxTokens, limits.maxContextLen - prompt.length);
    this.tokens = new Int32Array(prompt.length + this.maxTokens);
    this.tokens.set(prompt);
    this.sampling = sampling;
    this.repeatLastN = penalties.repeatLastN;
    this.logitBias = penalties.logitBias;
    this.adapted = adapted;
  }

  get completionLen(): number {
    return this.numTokens - this.promptLen;
  }
  get numUncomputed(): number {
    return this.numTokens - this.numComputed;
  }
  /** True once every token but the newest is in the cache. */
  get isDecoding(): boolean {
    return this.numUncomputed === 1 && this.completionLen > 0;
  }

  append(tokenId: number): void {
    this.tokens[this.numTokens++] = tokenId;
  }

  /** Takes sealed blocks that hold the start of the tokens; at least one token stays uncomputed. */
  adoptCachedPrefix(allocator: BlockAllocator): void {
    const mostBlocks = Math.floor((this.numTokens - 1) / blockSize);
    let parent = this.adapted.cacheRoot;
    while (this.blocks.length < mostBlocks) {
      const block = allocator.find(parent, this.tokens, this.blocks.length * blockSize);
      if (block === -1) break;
      this.blocks.push(block);
      parent = block;
    }
    this.numSealed = this.blocks.length;
    this.numComputed = this.blocks.length * blockSize;
    this.numCached = Math.min(this.numComputed, this.promptLen);
  }

  /** Makes room for `count` more computed tokens; false when the pool has no block left. */
  reserve(count: number, allocator: BlockAllocator): boolean {
    const needed = Math.ceil((this.numComputed + count) / blockSize);
    while (this.blocks.length < needed) {
      const block = allocator.allocate(this.blocks.at(-1) ?? -1);
      if (block === -1) return false;
      this.blocks.push(block);
    }
    return true;
  }

  /** Notes that `count` more tokens are computed and seals the blocks they fill. */
  commit(count: number, allocator: BlockAllocator): void {
    this.numComputed += count;
    const full = Math.floor(this.numComputed / blockSize);
    for (; this.numSealed < full; this.numSealed++) {
      const index = this.numSealed;
      const parent = index === 0 ? this.adapted.cacheRoot : this.blocks[index - 1]!;
      this.blocks[index] = allocator.seal(
        this.blocks[index]!,
        parent,
        this.tokens,
        index * blockSize,
      );
    }
  }

  /** Gives all blocks back, last first, so that the ends of prefixes are evicted first. */
  release(allocator: BlockAllocator): void {
    for (let index = this.blocks.length - 1; index >= 0; index--) {
      allocator.release(this.blocks[index]!);
    }
    this.blocks.length = 0;
    this.numSealed = 0;
    this.numComputed = 0;
  }
}
