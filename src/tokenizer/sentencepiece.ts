// SentencePiece BPE (kind "llama"): characters merge by the score of the token they make; what is
// no token is spelled in byte tokens.
import { type ByteStringIndex, hashBytes } from "./byte-string-index.ts";
import { type MergeRule, PairMerger } from "./pair-merger.ts";
import { SpaceCuts } from "./space-cuts.ts";
import { restoreSpaces } from "./space-marks.ts";
import type { TextAlgorithm } from "./text-algorithm.ts";
import type { TokenList } from "./token-list.ts";
import { encodeUtf8, utf8SequenceBytes } from "./utf8.ts";
import { SPACE_MARK, TokenFlag, type Vocabulary } from "./vocabulary.ts";
import { WordCache } from "./word-cache.ts";

/** Which pair merges first, and the strings that say where no merge can cross. */
type IndexedRule = MergeRule & { readonly index: ByteStringIndex };

export interface SentencePieceOptions {
  readonly addsSpacePrefix: boolean;
  /** Also in front of a text that begins with a space. */
  readonly doublesSpacePrefix: boolean;
  readonly unknownId: number | undefined;
  /** undefined: by the scores of the vocabulary. */
  readonly rule: IndexedRule | undefined;
}

export class SentencePiece implements TextAlgorithm {
  readonly addsSpacePrefix: boolean;
  private readonly doublesSpacePrefix: boolean;
  private readonly rule: IndexedRule;
  private readonly vocabulary: Vocabulary;
  private readonly unknownId: number | undefined;
  private readonly merger: PairMerger;
  private readonly cache = new WordCache();
  private cuts: SpaceCuts | undefined;
  private byteTokens: Int32Array | undefined;

  constructor(vocabulary: Vocabulary, options: SentencePieceOptions) {
    this.vocabulary = vocabulary;
    this.addsSpacePrefix = options.addsSpacePrefix;
    this.doublesSpacePrefix = options.doublesSpacePrefix;
    this.unknownId = options.unknownId;
    this.rule = options.rule ?? new ScoreRule(vocabulary);
    this.merger = new PairMerger(this.rule);
  }

  get maxUnitsPerToken(): number | undefined {
    // Without an unknown token a character may be left out; with one it has two units at most.
    return this.unknownId === undefined ? undefined : Math.max(this.vocabulary.maxUnits, 2);
  }

  encodeText(text: string, afterSpecial: boolean, output: TokenList): void {
    this.cuts ??= new SpaceCuts(this.rule.index);
    const hasPrefix = !this.doublesSpacePrefix && /^[ \u2581]/.test(text);
    const prefixed = this.addsSpacePrefix && afterSpecial && !hasPrefix ? ` ${text}` : text;
    const marked = prefixed.replaceAll(" ", SPACE_MARK);
    for (let start = 0; start < marked.length && !output.isFull; ) {
      const end = this.cuts.next(marked, start, marked.length);
      if (!this.cache.append(marked, start, end, output)) {
        const firstId = output.length;
        this.encodeWord(marked.slice(start, end), output);
        this.cache.remember(marked, start, end, output, firstId);
      }
      start = end;
    }
  }

  private encodeWord(word: string, output: TokenList): void {
    const { merger } = this;
    merger.begin(word.length * 3);
    const { bytes } = merger;
    const numBytes = encodeUtf8(word, bytes);
    for (let start = 0; start < numBytes; ) {
      const size = utf8SequenceBytes(bytes[start]!);
      merger.addSymbol(start, size, hashBytes(bytes, start, start + size));
      start += size;
    }
    merger.merge();
    const { index } = this.vocabulary;
    for (let symbol = merger.first; symbol >= 0; symbol = merger.after(symbol)) {
      const start = merger.starts[symbol]!;
      const size = merger.sizes[symbol]!;
      const tokenId = index.find(bytes, start, size, merger.hashes[symbol]!);
      if (tokenId >= 0) output.push(tokenId);
      else this.spellInBytes(bytes, start, size, output);
    }
  }

  /** Only a single character can be no token: every merge makes one. */
  private spellInBytes(bytes: Uint8Array, start: number, size: number, output: TokenList): void {
    this.byteTokens ??= this.vocabulary.byteTokens();
    const firstId = output.length;
    for (let i = start; i < start + size; i++) {
      const byteToken = this.byteTokens[bytes[i]!]!;
      if (byteToken >= 0) {
        output.push(byteToken);
      } else if (this.unknownId !== undefined) {
        // One unknown token for the character, not one for each of its bytes.
        output.truncate(firstId);
        output.push(this.unknownId);
        return;
      }
    }
  }

  pieceBytes(tokenId: number): Uint8Array {
    if (this.vocabulary.has(tokenId, TokenFlag.byte)) {
      const value = this.vocabulary.byteValue(tokenId);
      if (value >= 0) return Uint8Array.of(value);
    }
    return restoreSpaces(this.vocabulary.bytesOf(tokenId));
  }
}

/** The better score merges first. */
class ScoreRule implements MergeRule {
  readonly index: ByteStringIndex;
  private readonly vocabulary: Vocabulary;

  constructor(vocabulary: Vocabulary) {
    this.vocabulary = vocabulary;
    this.index = vocabulary.index;
  }

  priorityOf(symbols: PairMerger, left: number, right: number): number {
    const { index, scores } = this.vocabulary;
    const rightSize = symbols.sizes[right]!;
    const size = symbols.sizes[left]! + rightSize;
    if (size > index.maxBytes) return Infinity;
    const hash = index.joinHashes(symbols.hashes[left]!, symbols.hashes[right]!, rightSize);
    const tokenId = index.find(symbols.bytes, symbols.starts[left]!, size, hash);
    // Ordinary text never adds up to a control token, whoever wrote it.
    if (tokenId < 0 || this.vocabulary.has(tokenId, TokenFlag.control)) return Infinity;
    return scores === undefined ? 0 : -scores[tokenId]!;
  }

  joinHashes(leftHash: number, rightHash: number, rightSize: number): number {
    return this.vocabulary.index.joinHashes(leftHash, rightHash, rightSize);
  }
}
