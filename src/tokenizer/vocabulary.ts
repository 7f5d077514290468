// The tokens of a model: their texts, scores and types, and the way from a text to its id.
import { TinferError } from "../core/errors.ts";
import { getNumbers, getStrings, type Metadata } from "../weights/metadata.ts";
import { ByteStringIndex } from "./byte-string-index.ts";

/** What a token is, as bits; the names are those of GGUF's token types. */
export const TokenFlag = {
  normal: 1,
  unknown: 2,
  control: 4,
  userDefined: 8,
  unused: 16,
  byte: 32,
  /** Swallows the white space in front of its text. */
  stripsLeft: 64,
  /** Swallows the white space after its text. */
  stripsRight: 128,
} as const;

/** Index: the number in `tokenizer.ggml.token_type`. */
const FLAG_OF_TYPE = [
  TokenFlag.normal,
  TokenFlag.normal,
  TokenFlag.unknown,
  TokenFlag.control,
  TokenFlag.userDefined,
  TokenFlag.unused,
  TokenFlag.byte,
] as const;

export const SPACE_MARK = "\u2581";

export class Vocabulary {
  readonly size: number;
  readonly index: ByteStringIndex;
  /** [size] `TokenFlag` bits. */
  readonly flags: Uint8Array;
  /** [size] log probabilities or ranks, where the kind has them. */
  readonly scores: Float32Array | undefined;
  private longestUnits: number | undefined;

  constructor(metadata: Metadata) {
    const tokens = getStrings(metadata, "tokenizer.ggml.tokens");
    if (tokens === undefined || tokens.length === 0) {
      throw new TinferError("invalidFile", "metadata has no vocabulary (tokenizer.ggml.tokens)", {
        hint: "this file has no tokenizer; use one converted with its vocabulary",
      });
    }
    this.size = tokens.length;
    this.index = new ByteStringIndex(tokens);
    this.flags = new Uint8Array(this.size).fill(TokenFlag.normal);
    const types = perToken(metadata, "tokenizer.ggml.token_type", this.size);
    for (let id = 0; types !== undefined && id < this.size; id++) {
      this.flags[id] = FLAG_OF_TYPE[types[id]!] ?? TokenFlag.normal;
    }
    const scores = perToken(metadata, "tokenizer.ggml.scores", this.size);
    this.scores = scores === undefined ? undefined : Float32Array.from(scores);
  }

  find(text: string): number | undefined {
    return this.index.findText(text);
  }

  has(tokenId: number, flags: number): boolean {
    return (this.flags[tokenId]! & flags) !== 0;
  }

  bytesOf(tokenId: number): Uint8Array {
    return this.index.bytesOf(tokenId);
  }

  textOf(tokenId: number): string {
    return Buffer.from(this.bytesOf(tokenId)).toString("utf8");
  }

  /** The value of a token named `<0xE2>`, or -1. */
  byteValue(tokenId: number): number {
    const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(this.textOf(tokenId));
    return match === null ? -1 : Number.parseInt(match[1]!, 16);
  }

  /** UTF-16 units of the longest token. */
  get maxUnits(): number {
    this.longestUnits ??= longestUnits(this.index);
    return this.longestUnits;
  }

  /** The ids of the tokens `<0x00>` to `<0xFF>`; -1 where there is none. */
  byteTokens(): Int32Array {
    const name = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    return Int32Array.from({ length: 256 }, (_, byte) => this.find(name(byte)) ?? -1);
  }
}

function longestUnits({ bytes, starts, ends, length }: ByteStringIndex): number {
  let longest = 0;
  for (let index = 0; index < length; index++) {
    let units = 0;
    for (let at = starts[index]!; at < ends[index]!; at++) {
      const byte = bytes[at]!;
      // Characters of four bytes are two units, all others one.
      if (byte >= 0xf0) units += 2;
      else if ((byte & 0xc0) !== 0x80) units++;
    }
    longest = Math.max(longest, units);
  }
  return longest;
}

function perToken(metadata: Metadata, key: string, size: number): ArrayLike<number> | undefined {
  const values = getNumbers(metadata, key);
  if (values === undefined) return undefined;
  if (values.length < size || typeof values[0] === "bigint") {
    throw new TinferError("invalidFile", `metadata key '${key}' does not cover ${size} tokens`, {
      hint: "the file was written by a faulty converter; convert or download it again",
    });
  }
  return values as ArrayLike<number>;
}
