// Remembers the token ids of recent words, because most words of a text occur again. It lives in
// typed arrays of fixed size: it cannot grow, and no cached word keeps a large text alive.
import type { TokenList } from "./token-list.ts";

const SLOT_BITS = 16;
const MAX_WORDS = 2 ** (SLOT_BITS - 1);
const MAX_UNITS = 2 ** 19;
const MAX_IDS = 2 ** 18;
/** Longer words are rare, and not worth the room. */
const MAX_WORD_UNITS = 48;

export class WordCache {
  /** Word number plus one, zero for a free slot. */
  private readonly slots = new Int32Array(2 ** SLOT_BITS);
  private readonly hashes = new Int32Array(MAX_WORDS);
  /** Word w is units[unitOffsets[w], unitOffsets[w + 1]); its ids are stored likewise. */
  private readonly unitOffsets = new Int32Array(MAX_WORDS + 1);
  private readonly idOffsets = new Int32Array(MAX_WORDS + 1);
  private readonly units = new Uint16Array(MAX_UNITS);
  private readonly ids = new Int32Array(MAX_IDS);
  private count = 0;

  /** Appends the ids of `text[start, end)` to `output` if they are known. */
  append(text: string, start: number, end: number, output: TokenList): boolean {
    if (end - start > MAX_WORD_UNITS) return false;
    const word = this.slots[this.findSlot(text, start, end)]! - 1;
    if (word < 0) return false;
    const last = this.idOffsets[word + 1]!;
    for (let i = this.idOffsets[word]!; i < last; i++) output.push(this.ids[i]!);
    return true;
  }

  /** Remembers that `text[start, end)` gave the ids of `output` from `firstId` on. */
  remember(text: string, start: number, end: number, output: TokenList, firstId: number): void {
    const numUnits = end - start;
    const numIds = output.length - firstId;
    if (numUnits > MAX_WORD_UNITS || numIds > MAX_IDS) return;
    const unitEnd = this.unitOffsets[this.count]! + numUnits;
    const idEnd = this.idOffsets[this.count]! + numIds;
    if (this.count === MAX_WORDS || unitEnd > MAX_UNITS || idEnd > MAX_IDS) {
      // Full: start over. A text that fits is back in the cache at once.
      this.slots.fill(0);
      this.count = 0;
      this.remember(text, start, end, output, firstId);
      return;
    }
    const slot = this.findSlot(text, start, end);
    if (this.slots[slot] !== 0) return;
    const word = this.count++;
    const unitStart = this.unitOffsets[word]!;
    for (let i = 0; i < numUnits; i++) this.units[unitStart + i] = text.charCodeAt(start + i);
    const idStart = this.idOffsets[word]!;
    for (let i = 0; i < numIds; i++) this.ids[idStart + i] = output.at(firstId + i);
    this.unitOffsets[this.count] = unitEnd;
    this.idOffsets[this.count] = idEnd;
    this.hashes[word] = hashUnits(text, start, end);
    this.slots[slot] = this.count;
  }

  /** The slot that holds the word, or the free slot where it belongs. */
  private findSlot(text: string, start: number, end: number): number {
    const hash = hashUnits(text, start, end);
    let slot = Math.imul(hash, 0x9e3779b1) >>> (32 - SLOT_BITS);
    for (let entry = this.slots[slot]!; entry !== 0; entry = this.slots[slot]!) {
      if (this.hashes[entry - 1] === hash && this.isWord(entry - 1, text, start, end)) break;
      slot = (slot + 1) & (2 ** SLOT_BITS - 1);
    }
    return slot;
  }

  private isWord(word: number, text: string, start: number, end: number): boolean {
    const first = this.unitOffsets[word]!;
    if (this.unitOffsets[word + 1]! - first !== end - start) return false;
    for (let i = start; i < end; i++) {
      if (this.units[first + i - start] !== text.charCodeAt(i)) return false;
    }
    return true;
  }
}

function hashUnits(text: string, start: number, end: number): number {
  let hash = end - start;
  for (let i = start; i < end; i++) hash = (Math.imul(hash, 0x01000193) ^ text.charCodeAt(i)) | 0;
  return hash;
}
