// WordPiece (kind "bert"): each word is spelled by the longest tokens from left to right, or is
// unknown as a whole. Words begin with U+2581 in GGUF vocabularies, their later parts do not.
import { getBoolean, type Metadata } from "../weights/metadata.ts";
import { extendHash } from "./byte-string-index.ts";
import { restoreSpaces } from "./space-marks.ts";
import type { TextAlgorithm } from "./text-algorithm.ts";
import type { TokenList } from "./token-list.ts";
import { encodeUtf8 } from "./utf8.ts";
import { SPACE_MARK, type Vocabulary } from "./vocabulary.ts";
import { WordCache } from "./word-cache.ts";

const SPACE = /^\p{White_Space}$/v;
/** Control and format characters and the replacement character leave no trace. */
const DROPPED = /^[\p{Cc}\p{Cf}\p{Co}\p{Cs}\uFFFD]$/v;
const ACCENT = /^\p{M}$/v;
const PUNCTUATION = /^(?:\p{P}|[$+<=>^\x60\|~])$/v;
/** As the reference has them: extension E begins late, so some of it is not cut. */
const IDEOGRAPH = new RegExp(
  String.raw`^[\u4E00-\u9FFF\u3400-\u4DBF\uF900-\uFAFF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}` +
    String.raw`\u{2B740}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{2F800}-\u{2FA1F}]$`,
  "v",
);

export class WordPiece implements TextAlgorithm {
  /** The mark in front of each word; nothing is put in front of the text itself. */
  readonly addsSpacePrefix = true;
  /** An unknown word is one token, and spaces are none. */
  readonly maxUnitsPerToken = undefined;
  private readonly vocabulary: Vocabulary;
  private readonly unknownId: number | undefined;
  private readonly lowercases: boolean;
  private readonly stripsAccents: boolean;
  private readonly cache = new WordCache();

  constructor(vocabulary: Vocabulary, metadata: Metadata, unknownId: number | undefined) {
    this.vocabulary = vocabulary;
    this.unknownId = unknownId;
    const option = (name: string) => getBoolean(metadata, `tokenizer.ggml.normalizer.${name}`);
    this.lowercases = option("lowercase") ?? true;
    this.stripsAccents = option("strip_accents") ?? this.lowercases;
  }

  encodeText(text: string, _afterSpecial: boolean, output: TokenList): void {
    let word = "";
    const finish = () => {
      if (word.length > 0) this.encodeWord(word, output);
      word = "";
    };
    for (const original of text) {
      if (output.isFull) return;
      const character = this.stripsAccents ? baseOf(original) : original;
      if (SPACE.test(character)) {
        finish();
      } else if (!DROPPED.test(character) && !(this.stripsAccents && ACCENT.test(character))) {
        const normal = this.lowercases ? lowercaseOf(character) : character;
        if (PUNCTUATION.test(character) || IDEOGRAPH.test(character)) {
          finish();
          this.encodeWord(normal, output);
        } else {
          word += normal;
        }
      }
    }
    finish();
  }

  private encodeWord(word: string, output: TokenList): void {
    if (this.cache.append(word, 0, word.length, output)) return;
    const firstId = output.length;
    this.matchLongest(SPACE_MARK + word, output);
    this.cache.remember(word, 0, word.length, output, firstId);
  }

  private matchLongest(word: string, output: TokenList): void {
    const { index } = this.vocabulary;
    const bytes = new Uint8Array(word.length * 3);
    const numBytes = encodeUtf8(word, bytes);
    const firstId = output.length;
    let start = 0;
    while (start < numBytes) {
      const maxSize = Math.min(numBytes - start, index.maxBytes);
      let hash = 0;
      let bestSize = 0;
      let bestId = -1;
      for (let size = 1; size <= maxSize; size++) {
        hash = extendHash(hash, bytes[start + size - 1]!);
        const tokenId = index.find(bytes, start, size, hash);
        if (tokenId < 0) continue;
        bestSize = size;
        bestId = tokenId;
      }
      if (bestId < 0) {
        output.truncate(firstId);
        if (this.unknownId !== undefined) output.push(this.unknownId);
        return;
      }
      output.push(bestId);
      start += bestSize;
    }
  }

  pieceBytes(tokenId: number): Uint8Array {
    return restoreSpaces(this.vocabulary.bytesOf(tokenId));
  }
}

/** The first character of the canonical decomposition. */
function baseOf(character: string): string {
  return String.fromCodePoint(character.normalize("NFD").codePointAt(0)!);
}

function lowercaseOf(character: string): string {
  return String.fromCodePoint(character.toLowerCase().codePointAt(0)!);
}
