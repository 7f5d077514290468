// Owns the blocks of the KV pool: free, used (reference counted) or cached (full, unreferenced,
// findable by content). Knows block ids and token ids only, never memory.
import { assert } from "../core/errors.ts";
import { blockSize } from "../plan/arena.ts";

/** Blocks of one extent; a sequence grows inside extents so that reads stay long. */
const extentBlocks = 16;
const noBlock = -1;

export class BlockAllocator {
  readonly numBlocks: number;
  readonly #references: Uint16Array;
  /** Content hash of a sealed block; 0 = not sealed. */
  readonly #hashes: Float64Array;
  readonly #parents: Int32Array;
  /** Tokens of sealed blocks `[numBlocks, blockSize]`, compared on every hit. */
  readonly #tokens: Int32Array;
  readonly #sealed = new Map<number, number>();
  /** Cached blocks with no reference, the least recently used first. */
  readonly #unreferenced = new Set<number>();
  #numFree: number;

  constructor(numBlocks: number) {
    this.numBlocks = numBlocks;
    this.#numFree = numBlocks;
    this.#references = new Uint16Array(numBlocks);
    this.#hashes = new Float64Array(numBlocks);
    this.#parents = new Int32Array(numBlocks).fill(noBlock);
    this.#tokens = new Int32Array(numBlocks * blockSize);
  }

  /** Blocks that hold nothing. */
  get numFree(): number {
    return this.#numFree;
  }
  /** Blocks that hold a reusable prefix and belong to no sequence. */
  get numCached(): number {
    return this.#unreferenced.size;
  }
  get numAvailable(): number {
    return this.#numFree + this.#unreferenced.size;
  }

  /** Forgets all content. No block may be in use. */
  clear(): void {
    assert(this.numAvailable === this.numBlocks, "no block is in use");
    for (const block of this.#unreferenced) this.#forget(block);
    this.#unreferenced.clear();
    this.#numFree = this.numBlocks;
  }

  /** A block to follow `previous` (-1: a sequence's first block); -1 when none is left. */
  allocate(previous: number): number {
    const block = this.#pick(previous);
    if (block === noBlock) return noBlock;
    this.#references[block] = 1;
    this.#numFree--;
    return block;
  }

  #isFree(block: number): boolean {
    return this.#references[block] === 0 && this.#hashes[block] === 0;
  }

  /** The next block of the run, else the start of an empty extent, else any free, else the LRU. */
  #pick(previous: number): number {
    if (this.#numFree === 0) return this.#evict();
    const next = previous + 1;
    if (previous !== noBlock && next < this.numBlocks && this.#isFree(next)) return next;
    let any = noBlock;
    for (let start = 0; start < this.numBlocks; start += extentBlocks) {
      const end = Math.min(start + extentBlocks, this.numBlocks);
      let block = start;
      while (block < end && this.#isFree(block)) block++;
      if (block === end) return start;
      for (; any === noBlock && block < end; block++) if (this.#isFree(block)) any = block;
      if (any === noBlock && this.#isFree(start)) any = start;
    }
    return any;
  }

  #evict(): number {
    const [oldest] = this.#unreferenced;
    if (oldest === undefined) return noBlock;
    this.#unreferenced.delete(oldest);
    this.#forget(oldest);
    this.#numFree++;
    return oldest;
  }

  #forget(block: number): void {
    this.#sealed.delete(this.#hashes[block]!);
    this.#hashes[block] = 0;
    this.#parents[block] = noBlock;
  }

  /** Gives one reference back; a sealed block stays findable, another becomes free. */
  release(block: number): void {
    assert(this.#references[block]! > 0, `block ${block} has a reference`);
    this.#references[block]!--;
    if (this.#references[block] !== 0) return;
    if (this.#hashes[block] === 0) this.#numFree++;
    else this.#unreferenced.add(block);
  }

  /**
   * Makes a full block findable. `parent` is the sealed block before it in the sequence; for the
   * first a negative number, which stands for all else that its content depends on. Returns the
   * block that stands for this content from now on, which is another one when the same content
   * was sealed before; the reference moves to it.
   */
  seal(block: number, parent: number, tokens: Int32Array, start: number): number {
    // A block that a collision kept from being sealed stands for nothing, nor do those after it.
    if (parent >= 0 && this.#hashes[parent] === 0) return block;
    const hash = this.#hash(parent, tokens, start);
    const known = this.#sealed.get(hash);
    if (known !== undefined) {
      if (!this.#matches(known, parent, tokens, start)) return block; // A collision: not cached.
      if (known === block) return block;
      this.#acquire(known);
      this.release(block);
      return known;
    }
    this.#hashes[block] = hash;
    this.#parents[block] = parent;
    this.#tokens.set(tokens.subarray(start, start + blockSize), block * blockSize);
    this.#sealed.set(hash, block);
    return block;
  }

  /** The sealed block with this content, with a reference for the caller, or -1. */
  find(parent: number, tokens: Int32Array, start: number): number {
    const block = this.#sealed.get(this.#hash(parent, tokens, start));
    if (block === undefined || !this.#matches(block, parent, tokens, start)) return noBlock;
    this.#acquire(block);
    return block;
  }

  #acquire(block: number): void {
    this.#unreferenced.delete(block);
    this.#references[block]!++;
  }

  #matches(block: number, parent: number, tokens: Int32Array, start: number): boolean {
    if (this.#parents[block] !== parent) return false;
    const first = block * blockSize;
    for (let i = 0; i < blockSize; i++) {
      if (this.#tokens[first + i] !== tokens[start + i]) return false;
    }
    return true;
  }

  /** 52-bit hash of (parent's content, tokens), never 0: two FNV-1a lanes. */
  #hash(parent: number, tokens: Int32Array, start: number): number {
    const seed = parent < 0 ? (noBlock - parent) * 0x9e3779b1 : this.#hashes[parent]!;
    let low = (0x811c9dc5 ^ seed) >>> 0;
    let high = (0x01000193 ^ (seed / 0x100000000)) >>> 0;
    for (let i = start; i < start + blockSize; i++) {
      low = Math.imul(low ^ tokens[i]!, 0x01000193);
      high = Math.imul(high ^ (tokens[i]! + i - start), 0x85ebca6b);
      high ^= low >>> 15;
    }
    return ((high >>> 0) & 0xfffff) * 0x100000000 + (low >>> 0) + 1;
  }

  /** Throws unless free + used + cached = total; for tests and idle moments. */
  checkIntegrity(): void {
    let free = 0;
    let used = 0;
    for (let block = 0; block < this.numBlocks; block++) {
      if (this.#references[block]! > 0) used++;
      else if (this.#hashes[block] === 0) free++;
      else assert(this.#unreferenced.has(block), `cached block ${block} is listed`);
    }
    assert(free === this.#numFree, `free blocks: counted ${free}, noted ${this.#numFree}`);
    const total = free + used + this.#unreferenced.size;
    assert(total === this.numBlocks, `blocks: ${total} of ${this.numBlocks} accounted for`);
  }
}
