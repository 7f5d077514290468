// Finds strings by their bytes: a hash table in typed arrays over the strings of a vocabulary or
// of its merges. Hundreds of thousands of entries are indexed in milliseconds, which a Map of
// JavaScript strings cannot do. The hash is a polynomial, so that of a concatenation follows from
// those of its parts.
import type { StringArray } from "../weights/metadata.ts";
import { locateStrings } from "./string-extents.ts";

const BASE = 0x01000193;
/** Spreads the polynomial's low bits over the table (Fibonacci hashing). */
const SPREAD = 0x9e3779b1;
const SPACE = 0x20;
const textEncoder = new TextEncoder();

/** The polynomial hash of `bytes[start, end)`. */
export function hashBytes(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0;
  for (let i = start; i < end; i++) hash = (Math.imul(hash, BASE) + bytes[i]! + 1) | 0;
  return hash;
}

/** The hash of a string that is one byte longer. */
export function extendHash(hash: number, byte: number): number {
  return (Math.imul(hash, BASE) + byte + 1) | 0;
}

export class ByteStringIndex {
  readonly length: number;
  /** Bytes of the longest string. */
  readonly maxBytes: number;
  /** String `i` is `bytes[starts[i], ends[i])`. */
  readonly bytes: Uint8Array;
  readonly starts: Uint32Array;
  readonly ends: Uint32Array;
  private readonly hashes: Int32Array;
  /** Open addressing: string index plus one, zero for a free slot. */
  private readonly slots: Int32Array;
  private readonly shift: number;
  /** `powers[n]` is BASE to the power of n, up to `maxBytes`. */
  private readonly powers: Int32Array;

  constructor(strings: StringArray) {
    this.length = strings.length;
    ({ bytes: this.bytes, starts: this.starts, ends: this.ends } = locateStrings(strings));
    this.hashes = hashAll(this.bytes, this.starts, this.ends);
    this.maxBytes = longest(this.starts, this.ends);

    let bits = 4;
    while (2 ** bits < this.length * 2) bits++;
    this.shift = 32 - bits;
    this.slots = new Int32Array(2 ** bits);
    this.insertAll();

    this.powers = new Int32Array(this.maxBytes + 2);
    this.powers[0] = 1;
    for (let n = 1; n < this.powers.length; n++) {
      this.powers[n] = Math.imul(this.powers[n - 1]!, BASE);
    }
  }

  /** The first string wins over a later duplicate; the empty string is not found. */
  private insertAll(): void {
    const { slots, hashes, shift, starts, ends } = this;
    const mask = slots.length - 1;
    for (let index = 0; index < hashes.length; index++) {
      if (starts[index] === ends[index]) continue;
      const hash = hashes[index]!;
      let slot = Math.imul(hash, SPREAD) >>> shift;
      let entry = slots[slot]!;
      while (entry !== 0 && !(hashes[entry - 1] === hash && this.areEqual(entry - 1, index))) {
        slot = (slot + 1) & mask;
        entry = slots[slot]!;
      }
      if (entry === 0) slots[slot] = index + 1;
    }
  }

  private areEqual(a: number, b: number): boolean {
    const size = this.ends[b]! - this.starts[b]!;
    if (this.ends[a]! - this.starts[a]! !== size) return false;
    return rangesEqual(this.bytes, this.starts[a]!, this.bytes, this.starts[b]!, size);
  }

  /** The index of the string equal to `size` bytes at `start`, whose hash is given, or -1. */
  find(bytes: Uint8Array, start: number, size: number, hash: number): number {
    if (size > this.maxBytes) return -1;
    const { slots, hashes, starts, ends } = this;
    const mask = slots.length - 1;
    let slot = Math.imul(hash, SPREAD) >>> this.shift;
    for (let entry = slots[slot]!; entry !== 0; entry = slots[slot]!) {
      const index = entry - 1;
      if (hashes[index] === hash) {
        const own = starts[index]!;
        if (ends[index]! - own === size && rangesEqual(this.bytes, own, bytes, start, size)) {
          return index;
        }
      }
      slot = (slot + 1) & mask;
    }
    return -1;
  }

  /** As `find`, for the string "left right" where left and right lie side by side in `bytes`. */
  findPair(bytes: Uint8Array, start: number, leftSize: number, rightSize: number, hash: number) {
    const size = leftSize + 1 + rightSize;
    if (size > this.maxBytes) return -1;
    const { slots, hashes, starts, ends, bytes: own } = this;
    const mask = slots.length - 1;
    let slot = Math.imul(hash, SPREAD) >>> this.shift;
    for (let entry = slots[slot]!; entry !== 0; entry = slots[slot]!) {
      const index = entry - 1;
      if (hashes[index] === hash) {
        const at = starts[index]!;
        const space = at + leftSize;
        if (
          ends[index]! - at === size &&
          own[space] === SPACE &&
          rangesEqual(own, at, bytes, start, leftSize) &&
          rangesEqual(own, space + 1, bytes, start + leftSize, rightSize)
        ) {
          return index;
        }
      }
      slot = (slot + 1) & mask;
    }
    return -1;
  }

  /** The hash of left + right; right must not be longer than the longest string. */
  joinHashes(leftHash: number, rightHash: number, rightSize: number): number {
    return (Math.imul(leftHash, this.powers[rightSize]!) + rightHash) | 0;
  }

  /** The hash of "left right"; right must not be longer than the longest string. */
  pairHash(leftHash: number, rightHash: number, rightSize: number): number {
    const withSpace = (Math.imul(leftHash, BASE) + SPACE + 1) | 0;
    return (Math.imul(withSpace, this.powers[rightSize]!) + rightHash) | 0;
  }

  findText(text: string): number | undefined {
    const bytes = textEncoder.encode(text);
    const index = this.find(bytes, 0, bytes.length, hashBytes(bytes, 0, bytes.length));
    return index < 0 ? undefined : index;
  }

  /** A view of one string's bytes; it must not be written. */
  bytesOf(index: number): Uint8Array {
    return this.bytes.subarray(this.starts[index]!, this.ends[index]!);
  }
}

function hashAll(bytes: Uint8Array, starts: Uint32Array, ends: Uint32Array): Int32Array {
  const hashes = new Int32Array(starts.length);
  for (let index = 0; index < hashes.length; index++) {
    const end = ends[index]!;
    let hash = 0;
    for (let i = starts[index]!; i < end; i++) hash = (Math.imul(hash, BASE) + bytes[i]! + 1) | 0;
    hashes[index] = hash;
  }
  return hashes;
}

function longest(starts: Uint32Array, ends: Uint32Array): number {
  let size = 0;
  for (let i = 0; i < starts.length; i++) size = Math.max(size, ends[i]! - starts[i]!);
  return size;
}

function rangesEqual(a: Uint8Array, aStart: number, b: Uint8Array, bStart: number, size: number) {
  for (let i = 0; i < size; i++) {
    if (a[aStart + i] !== b[bStart + i]) return false;
  }
  return true;
}
