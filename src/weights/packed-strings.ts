// Strings kept as the bytes of the file plus offsets, decoded on demand: a vocabulary of 128k
// tokens costs no string objects until someone asks for them.
import { assert } from "../core/errors.ts";
import type { StringArray } from "./metadata.ts";

// `ignoreBOM` keeps a leading U+FEFF, which is a token of its own in several vocabularies.
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of `bytes`, or undefined where they are not UTF-8. */
export function decodeStrict(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/**
 * The text of `bytes`. A byte 0xNN that is not part of valid UTF-8 becomes the lone surrogate
 * U+DCNN (as in Python's "surrogateescape"): nothing is lost, different bytes stay different
 * strings, and none of them equals real text.
 */
export function decodeLossless(bytes: Uint8Array): string {
  return decodeStrict(bytes) ?? escapeInvalid(bytes);
}

/** Decodes by hand, in one pass: a call per character took seconds for a long hostile string. */
function escapeInvalid(bytes: Uint8Array): string {
  const units = new Uint16Array(bytes.length);
  let count = 0;
  let index = 0;
  while (index < bytes.length) {
    const numBytes = sequenceBytes(bytes, index);
    const codePoint = numBytes === 0 ? 0xdc00 + bytes[index]! : codePointAt(bytes, index, numBytes);
    index += Math.max(1, numBytes);
    if (codePoint > 0xffff) units[count++] = 0xd7c0 + (codePoint >> 10);
    units[count++] = codePoint > 0xffff ? 0xdc00 + (codePoint & 0x3ff) : codePoint;
  }
  return Buffer.from(units.buffer, 0, 2 * count).toString("utf16le");
}

/** Bytes of the valid UTF-8 sequence at `index`, or 0 where there is none (Unicode, table 3-7). */
function sequenceBytes(bytes: Uint8Array, index: number): number {
  const lead = bytes[index]!;
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const numBytes = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (index + numBytes > bytes.length) return 0;
  // Second bytes that would make overlong forms, surrogates or what is past U+10FFFF.
  const second = bytes[index + 1]!;
  const least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  if (second < least || second > most) return 0;
  for (let i = 2; i < numBytes; i++) if ((bytes[index + i]! & 0xc0) !== 0x80) return 0;
  return numBytes;
}

function codePointAt(bytes: Uint8Array, index: number, numBytes: number): number {
  if (numBytes === 1) return bytes[index]!;
  let codePoint = bytes[index]! & (0xff >> (numBytes + 1));
  for (let i = 1; i < numBytes; i++) codePoint = (codePoint << 6) | (bytes[index + i]! & 0x3f);
  return codePoint;
}

/** The bytes that `decodeLossless` turns into `text`; undefined for other lone surrogates. */
export function encodeLossless(text: string): Uint8Array | undefined {
  if (text.isWellFormed()) return new TextEncoder().encode(text);
  const bytes: number[] = [];
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (character.isWellFormed()) bytes.push(...new TextEncoder().encode(character));
    else if (code >= 0xdc80 && code <= 0xdcff) bytes.push(code - 0xdc00);
    else return undefined;
  }
  return Uint8Array.from(bytes);
}

export class PackedStrings implements StringArray {
  readonly length: number;
  readonly #bytes: Uint8Array;
  readonly #text: Buffer;
  /** [length + 1]: where each string begins in `bytes`; the last entry closes the array. */
  readonly #starts: Uint32Array;
  /** Bytes between two strings (the length prefix of the next one). */
  readonly #gapBytes: number;

  constructor(bytes: Uint8Array<ArrayBuffer>, starts: Uint32Array, gapBytes: number) {
    this.length = starts.length - 1;
    this.#bytes = bytes;
    this.#text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#starts = starts;
    this.#gapBytes = gapBytes;
  }

  at(index: number): string {
    this.#check(index);
    const start = this.#starts[index]!;
    const end = this.#starts[index + 1]! - this.#gapBytes;
    const text = this.#text.toString("utf8", start, end);
    // U+FFFD is either in the file or stands for bytes that are not UTF-8.
    return text.includes("\ufffd") ? decodeLossless(this.#bytes.subarray(start, end)) : text;
  }

  bytesAt(index: number): Uint8Array {
    this.#check(index);
    return this.#bytes.subarray(this.#starts[index]!, this.#starts[index + 1]! - this.#gapBytes);
  }

  toArray(): string[] {
    const strings = new Array<string>(this.length);
    for (let index = 0; index < this.length; index++) strings[index] = this.at(index);
    return strings;
  }

  #check(index: number): void {
    assert(index >= 0 && index < this.length, `string ${index} of ${this.length}`);
  }
}
