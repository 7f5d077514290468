// SentencePiece unigram (kind "t5"): of all ways to spell a word the one with the best sum of
// scores; a character that no token has becomes the unknown token.
import { getBoolean, getNumbers, type Metadata } from "../weights/metadata.ts";
import { extendHash } from "./byte-string-index.ts";
import { CharacterMap } from "./character-map.ts";
import { SpaceCuts } from "./space-cuts.ts";
import { restoreSpaces } from "./space-marks.ts";
import type { TextAlgorithm } from "./text-algorithm.ts";
import { TokenList } from "./token-list.ts";
import { encodeUtf8, utf8SequenceBytes } from "./utf8.ts";
import { SPACE_MARK, TokenFlag, type Vocabulary } from "./vocabulary.ts";
import { WordCache } from "./word-cache.ts";

/** How much worse an unknown character is than the worst token. */
const UNKNOWN_PENALTY = 10;
const USABLE = TokenFlag.normal | TokenFlag.userDefined | TokenFlag.unused;

export class Unigram implements TextAlgorithm {
  readonly addsSpacePrefix: boolean;
  /** Unknown characters in a row are one token, and the map of characters drops some. */
  readonly maxUnitsPerToken = undefined;
  private readonly vocabulary: Vocabulary;
  private readonly unknownId: number;
  private readonly unknownScore: number;
  private readonly mergesSpaces: boolean;
  private readonly characterMap: CharacterMap;
  private readonly cache = new WordCache();
  private cuts: SpaceCuts | undefined;

  constructor(vocabulary: Vocabulary, metadata: Metadata, unknownId: number) {
    const option = (name: string) => getBoolean(metadata, `tokenizer.ggml.${name}`) ?? false;
    this.vocabulary = vocabulary;
    this.unknownId = unknownId;
    this.mergesSpaces = option("remove_extra_whitespaces");
    this.addsSpacePrefix = option("add_space_prefix") || this.mergesSpaces;
    this.characterMap = new CharacterMap(
      getNumbers(metadata, "tokenizer.ggml.precompiled_charsmap"),
    );
    let worst = Infinity;
    for (let id = 0; id < vocabulary.size; id++) {
      if (vocabulary.has(id, TokenFlag.normal)) {
        worst = Math.min(worst, vocabulary.scores?.[id] ?? 0);
      }
    }
    this.unknownScore = worst - UNKNOWN_PENALTY;
  }

  encodeText(text: string, _afterSpecial: boolean, output: TokenList): void {
    this.cuts ??= new SpaceCuts(this.vocabulary.index);
    const marked = this.normalize(text);
    const firstId = output.length;
    const word = new TokenList();
    for (let start = 0; start < marked.length && !output.isFull; ) {
      const end = this.cuts.next(marked, start, marked.length);
      word.truncate(0);
      if (!this.cache.append(marked, start, end, word)) {
        this.encodeWord(marked.slice(start, end), word);
        this.cache.remember(marked, start, end, word, 0);
      }
      for (let i = 0; i < word.length; i++) {
        // A run of unknown characters is one token, also across words.
        const isUnknown = word.at(i) === this.unknownId;
        const length = output.length;
        if (isUnknown && length > firstId && output.at(length - 1) === this.unknownId) continue;
        output.push(word.at(i));
      }
      start = end;
    }
  }

  private normalize(text: string): string {
    const mapped = this.characterMap.apply(text);
    let normal = mapped;
    if (this.mergesSpaces) {
      // Each word has one space in front, the first one too.
      normal = ` ${mapped}`.replace(/ {2,}/g, " ").replace(/ $/, "");
    } else if (this.addsSpacePrefix && /[^ ]/.test(mapped)) {
      const first = mapped.search(/[^ ]/);
      normal = `${mapped.slice(0, first)} ${mapped.slice(first)}`;
    }
    return normal.replaceAll(" ", SPACE_MARK);
  }

  private encodeWord(word: string, output: TokenList): void {
    const bytes = new Uint8Array(word.length * 3);
    const numBytes = encodeUtf8(word, bytes);
    // Per byte offset: the best score up to there, and the token that ends there.
    const scores = new Float64Array(numBytes + 1).fill(-Infinity);
    const tokenIds = new Int32Array(numBytes + 1);
    const starts = new Int32Array(numBytes + 1);
    scores[0] = 0;
    for (let start = 0; start < numBytes; ) {
      const characterSize = utf8SequenceBytes(bytes[start]!);
      const isKnown = this.extend(bytes, start, numBytes, characterSize, scores, tokenIds, starts);
      const end = start + characterSize;
      const score = scores[start]! + this.unknownScore;
      if (!isKnown && score > scores[end]!) {
        scores[end] = score;
        tokenIds[end] = this.unknownId;
        starts[end] = start;
      }
      start = end;
    }
    const reversed: number[] = [];
    for (let end = numBytes; end > 0; end = starts[end]!) {
      const isRepeat = tokenIds[end] === this.unknownId && reversed.at(-1) === this.unknownId;
      if (!isRepeat) reversed.push(tokenIds[end]!);
    }
    for (let i = reversed.length - 1; i >= 0; i--) output.push(reversed[i]!);
  }

  /** Tries all tokens that begin at `start`; true when the single character there is one. */
  private extend(
    bytes: Uint8Array,
    start: number,
    numBytes: number,
    characterSize: number,
    scores: Float64Array,
    tokenIds: Int32Array,
    starts: Int32Array,
  ): boolean {
    const { index } = this.vocabulary;
    let isKnown = false;
    let hash = 0;
    const maxSize = Math.min(index.maxBytes, numBytes - start);
    for (let size = 1; size <= maxSize; size++) {
      hash = extendHash(hash, bytes[start + size - 1]!);
      const tokenId = index.find(bytes, start, size, hash);
      if (tokenId < 0 || !this.vocabulary.has(tokenId, USABLE)) continue;
      if (size === characterSize) isKnown = true;
      // User-defined tokens are to be preferred: scores are negative.
      const isDefined = this.vocabulary.has(tokenId, TokenFlag.userDefined);
      const score = scores[start]! + (isDefined ? 0 : (this.vocabulary.scores?.[tokenId] ?? 0));
      if (score > scores[start + size]!) {
        scores[start + size] = score;
        tokenIds[start + size] = tokenId;
        starts[start + size] = start;
      }
    }
    return isKnown;
  }

  pieceBytes(tokenId: number): Uint8Array {
    if (this.vocabulary.has(tokenId, TokenFlag.byte)) {
      const value = this.vocabulary.byteValue(tokenId);
      if (value >= 0) return Uint8Array.of(value);
    }
    return restoreSpaces(this.vocabulary.bytesOf(tokenId));
  }
}
