// The alphabet of byte-level BPE: GPT-2 writes each byte as one visible character, so that tokens
// can be listed as text. Visible Latin-1 stands for itself, the rest for U+0100 and up, in order.
import { hashBytes } from "./byte-string-index.ts";
import type { PairMerger } from "./pair-merger.ts";
import { decodeUtf8 } from "./utf8.ts";
import type { Vocabulary } from "./vocabulary.ts";

function isVisible(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
}

export class ByteAlphabet {
  /** Letter of each byte in UTF-8: two bytes, the second is 0 when one is enough. */
  private readonly letters = new Uint8Array(512);
  private readonly hashes = new Int32Array(256);
  /** Byte of each letter by code point; -1 for code points that are no letter. */
  private readonly byteOfLetter = new Int16Array(0x144).fill(-1);

  constructor() {
    let numHidden = 0;
    for (let byte = 0; byte < 256; byte++) {
      const letter = isVisible(byte) ? byte : 0x100 + numHidden++;
      const bytes = Buffer.from(String.fromCharCode(letter));
      this.letters.set(bytes, byte * 2);
      this.hashes[byte] = hashBytes(bytes, 0, bytes.length);
      this.byteOfLetter[letter] = byte;
    }
  }

  /** Whether each letter is a token. */
  isIn(vocabulary: Vocabulary): boolean {
    return this.byteOfLetter.every((byte, codePoint) => {
      return byte < 0 || vocabulary.find(String.fromCharCode(codePoint)) !== undefined;
    });
  }

  /** Writes the letters of `raw` into the merger, a symbol for each; returns the bytes written. */
  addSymbols(raw: Uint8Array, numRaw: number, merger: PairMerger): number {
    const { letters, hashes } = this;
    const { bytes } = merger;
    let end = 0;
    for (let i = 0; i < numRaw; i++) {
      const byte = raw[i]!;
      const start = end;
      bytes[end++] = letters[byte * 2]!;
      const second = letters[byte * 2 + 1]!;
      if (second !== 0) bytes[end++] = second;
      merger.addSymbol(start, end - start, hashes[byte]!);
    }
    return end;
  }

  /** The bytes that a token's letters stand for; what is no letter stands for itself. */
  decode(letters: Uint8Array): Uint8Array {
    const decoded: number[] = [];
    for (const character of decodeUtf8(letters)) {
      const byte = this.byteOfLetter[character.codePointAt(0)!] ?? -1;
      if (byte >= 0) decoded.push(byte);
      else decoded.push(...Buffer.from(character));
    }
    return Uint8Array.from(decoded);
  }
}
