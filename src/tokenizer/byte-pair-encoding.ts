// Byte-pair encoding by a list of merges (kinds "gpt2" and "gemma4"): a pretokenizer cuts the text
// into words, in which the pair that comes first in the list merges first.
import { TinferError } from "../core/errors.ts";
import { getStrings, type Metadata, type StringArray } from "../weights/metadata.ts";
import { ByteAlphabet } from "./byte-alphabet.ts";
import { ByteStringIndex, hashBytes } from "./byte-string-index.ts";
import { type MergeRule, PairMerger } from "./pair-merger.ts";
import type { Pretokenizer } from "./pretokenizer-table.ts";
import { SpaceCuts } from "./space-cuts.ts";
import { restoreSpaces } from "./space-marks.ts";
import type { TextAlgorithm } from "./text-algorithm.ts";
import type { TokenList } from "./token-list.ts";
import { encodeUtf8, utf8SequenceBytes } from "./utf8.ts";
import { SPACE_MARK, TokenFlag, type Vocabulary } from "./vocabulary.ts";
import { WordCache } from "./word-cache.ts";
import { WordSplitter } from "./word-splitter.ts";

const SCRATCH_BYTES = 2 ** 14;

export class BytePairEncoding implements TextAlgorithm {
  readonly addsSpacePrefix = false;
  private readonly vocabulary: Vocabulary;
  private readonly pretokenizer: Pretokenizer;
  private readonly merges: StringArray;
  private readonly alphabet = new ByteAlphabet();
  private readonly cache = new WordCache();
  private readonly scratch = new Uint8Array(SCRATCH_BYTES);
  // Built when first needed: a program that only decodes never pays for them.
  private rule: RankRule | undefined;
  private merger: PairMerger | undefined;
  private splitter: WordSplitter | undefined;
  private cuts: SpaceCuts | undefined;
  private byteTokens: Int32Array | undefined;
  private spellsAll: boolean | undefined;

  constructor(vocabulary: Vocabulary, metadata: Metadata, pretokenizer: Pretokenizer) {
    this.vocabulary = vocabulary;
    this.pretokenizer = pretokenizer;
    const merges = getStrings(metadata, "tokenizer.ggml.merges");
    if (merges === undefined) {
      throw new TinferError("invalidFile", "metadata has no merges (tokenizer.ggml.merges)", {
        hint: "byte-pair encoding needs them; convert or download the file again",
      });
    }
    this.merges = merges;
  }

  get maxUnitsPerToken(): number | undefined {
    // A byte has a token of its own where it is in no longer one; else it is left out.
    this.spellsAll ??=
      this.pretokenizer.escapesSpaces === true
        ? !this.vocabulary.byteTokens().includes(-1)
        : this.alphabet.isIn(this.vocabulary);
    return this.spellsAll ? this.vocabulary.maxUnits : undefined;
  }

  encodeText(text: string, _afterSpecial: boolean, output: TokenList): void {
    this.splitter ??= new WordSplitter(this.pretokenizer);
    const escapes = this.pretokenizer.escapesSpaces === true;
    const marked = escapes ? text.replaceAll(" ", SPACE_MARK) : text;
    const ends = this.splitter.split(marked);
    let start = 0;
    for (let i = 0; i < ends.length && !output.isFull; i++) {
      const end = ends.at(i);
      if (escapes) this.encodeLine(marked, start, end, output);
      else this.encodeWord(marked, start, end, output);
      start = end;
    }
  }

  /** Without words there are long stretches to merge; they are cut where no merge can cross. */
  private encodeLine(text: string, lineStart: number, lineEnd: number, output: TokenList): void {
    this.cuts ??= new SpaceCuts(this.mergeRule().index);
    for (let start = lineStart; start < lineEnd && !output.isFull; ) {
      const end = this.cuts.next(text, start, lineEnd);
      this.encodeWord(text, start, end, output);
      start = end;
    }
  }

  private encodeWord(text: string, start: number, end: number, output: TokenList): void {
    if (this.cache.append(text, start, end, output)) return;
    const firstId = output.length;
    this.mergeWord(text.slice(start, end), output);
    this.cache.remember(text, start, end, output, firstId);
  }

  private mergeWord(word: string, output: TokenList): void {
    this.merger ??= new PairMerger(this.mergeRule());
    const { merger } = this;
    const numBytes = this.writeSymbols(merger, word);
    const { index } = this.vocabulary;
    if (this.isTakenWhole(word)) {
      const hash = hashBytes(merger.bytes, 0, numBytes);
      const tokenId = index.find(merger.bytes, 0, numBytes, hash);
      if (tokenId >= 0) {
        output.push(tokenId);
        return;
      }
    }
    merger.merge();
    for (let symbol = merger.first; symbol >= 0; symbol = merger.after(symbol)) {
      const start = merger.starts[symbol]!;
      const size = merger.sizes[symbol]!;
      const tokenId = index.find(merger.bytes, start, size, merger.hashes[symbol]!);
      if (tokenId >= 0) output.push(tokenId);
      else this.spell(merger.bytes, start, size, output);
    }
  }

  private isTakenWhole(word: string): boolean {
    if (this.pretokenizer.ignoreMerges === true) return true;
    return this.pretokenizer.wholeNewlines === true && word.startsWith("\n");
  }

  /** Begins the merger with one symbol per byte or character; returns the bytes written. */
  private writeSymbols(merger: PairMerger, word: string): number {
    if (this.pretokenizer.escapesSpaces === true) {
      merger.begin(word.length * 3);
      const { bytes } = merger;
      const numBytes = encodeUtf8(word, bytes);
      for (let start = 0; start < numBytes; ) {
        const size = utf8SequenceBytes(bytes[start]!);
        merger.addSymbol(start, size, hashBytes(bytes, start, start + size));
        start += size;
      }
      return numBytes;
    }
    const maxBytes = word.length * 3;
    const raw = maxBytes <= SCRATCH_BYTES ? this.scratch : new Uint8Array(maxBytes);
    const numRaw = encodeUtf8(word, raw);
    merger.begin(numRaw * 2);
    return this.alphabet.addSymbols(raw, numRaw, merger);
  }

  /** Spells a symbol that is no token. What not even its bytes have a token for is left out. */
  private spell(bytes: Uint8Array, start: number, size: number, output: TokenList): void {
    if (this.pretokenizer.escapesSpaces === true) {
      this.byteTokens ??= this.vocabulary.byteTokens();
      for (let i = start; i < start + size; i++) {
        const byteToken = this.byteTokens[bytes[i]!]!;
        if (byteToken >= 0) output.push(byteToken);
      }
      return;
    }
    const { index } = this.vocabulary;
    for (let at = start; at < start + size; ) {
      const letterSize = utf8SequenceBytes(bytes[at]!);
      const tokenId = index.find(bytes, at, letterSize, hashBytes(bytes, at, at + letterSize));
      if (tokenId >= 0) output.push(tokenId);
      at += letterSize;
    }
  }

  private mergeRule(): RankRule {
    this.rule ??= rankRule(this.merges);
    return this.rule;
  }

  pieceBytes(tokenId: number): Uint8Array {
    const { vocabulary } = this;
    if (vocabulary.has(tokenId, TokenFlag.byte)) {
      const value = vocabulary.byteValue(tokenId);
      if (value >= 0) return Uint8Array.of(value);
    }
    const bytes = vocabulary.bytesOf(tokenId);
    if (this.pretokenizer.escapesSpaces === true) return restoreSpaces(bytes);
    return this.alphabet.decode(bytes);
  }
}

/** The rule of merges written "left right"; its index also says where texts can be cut. */
export function rankRule(merges: StringArray): RankRule {
  return new RankRule(new ByteStringIndex(merges));
}

/** The pair that is listed first merges first. */
class RankRule implements MergeRule {
  readonly index: ByteStringIndex;

  constructor(index: ByteStringIndex) {
    this.index = index;
  }

  priorityOf(symbols: PairMerger, left: number, right: number): number {
    const { index } = this;
    const leftSize = symbols.sizes[left]!;
    const rightSize = symbols.sizes[right]!;
    if (leftSize + 1 + rightSize > index.maxBytes) return Infinity;
    const hash = index.pairHash(symbols.hashes[left]!, symbols.hashes[right]!, rightSize);
    const rank = index.findPair(symbols.bytes, symbols.starts[left]!, leftSize, rightSize, hash);
    return rank < 0 ? Infinity : rank;
  }

  joinHashes(leftHash: number, rightHash: number, rightSize: number): number {
    return this.index.joinHashes(leftHash, rightHash, rightSize);
  }
}
