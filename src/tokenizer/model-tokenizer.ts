// The tokenizer of a model: special tokens and BOS/EOS around a kind's way with ordinary text.
import { TinferError } from "../core/errors.ts";
import { startsWithMark } from "./space-marks.ts";
import { SpecialMatcher } from "./special-matcher.ts";
import type { TextAlgorithm } from "./text-algorithm.ts";
import { TokenList } from "./token-list.ts";
import type {
  DecodeOptions,
  Detokenizer,
  EncodeOptions,
  SpecialTokens,
  Tokenizer,
  TokenLimit,
} from "./tokenizer.ts";
import { decodeUtf8, Utf8Stream } from "./utf8.ts";
import { TokenFlag, type Vocabulary } from "./vocabulary.ts";

/** The ids around an encoded text; undefined where none is added. */
export interface Frame {
  first?: number;
  last?: number;
}

/** The ids before, between and after two texts. */
export interface PairFrame {
  readonly first: readonly number[];
  readonly middle: readonly number[];
  readonly last: readonly number[];
}

export interface TokenizerParts {
  kind: string;
  vocabulary: Vocabulary;
  specialTokens: SpecialTokens;
  frame: Frame;
  pairFrame: PairFrame;
  addsBos: boolean;
  addsEos: boolean;
  algorithm: TextAlgorithm;
  /** A space goes in front of a text only, not behind special tokens inside of it. */
  prefixesFirstTextOnly?: boolean;
  /** Unicode normalisation form of ordinary text; undefined = none. */
  form?: string | undefined;
}

const HIDDEN = TokenFlag.control | TokenFlag.unknown;
const SPELLED_OUT = HIDDEN | TokenFlag.userDefined;
const SPACE = 0x20;

export class ModelTokenizer implements Tokenizer {
  readonly kind: string;
  readonly vocabSize: number;
  readonly specialTokens: SpecialTokens;
  readonly addsBos: boolean;
  readonly addsEos: boolean;
  private readonly vocabulary: Vocabulary;
  private readonly algorithm: TextAlgorithm;
  private readonly frame: Frame;
  private readonly pairFrame: PairFrame;
  private readonly prefixesFirstTextOnly: boolean;
  private readonly form: string | undefined;
  private allSpecial: SpecialMatcher | undefined;
  private userDefined: SpecialMatcher | undefined;

  constructor(parts: TokenizerParts) {
    this.kind = parts.kind;
    this.vocabulary = parts.vocabulary;
    this.vocabSize = parts.vocabulary.size;
    this.specialTokens = parts.specialTokens;
    this.frame = parts.frame;
    this.pairFrame = parts.pairFrame;
    this.addsBos = parts.addsBos;
    this.addsEos = parts.addsEos;
    this.algorithm = parts.algorithm;
    this.prefixesFirstTextOnly = parts.prefixesFirstTextOnly ?? false;
    this.form = parts.form;
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const { addSpecial = true, parseSpecial = true, limit } = options;
    const output = new TokenList(limit?.numCounted);
    if (addSpecial && this.frame.first !== undefined) output.push(this.frame.first);
    let afterSpecial = true;
    for (const fragment of this.matcher(parseSpecial).split(text.toWellFormed())) {
      if (output.isFull) break;
      if ("tokenId" in fragment) {
        output.push(fragment.tokenId);
        afterSpecial = !this.prefixesFirstTextOnly;
      } else {
        const { form } = this;
        const normal = form === undefined ? fragment.text : fragment.text.normalize(form);
        if (limit !== undefined) this.refuseLong(normal, output.length, limit);
        this.algorithm.encodeText(normal, afterSpecial, output);
        afterSpecial = false;
      }
    }
    if (addSpecial && this.frame.last !== undefined) output.push(this.frame.last);
    if (output.isFull && limit?.error !== undefined) throw limit.error(limit.numCounted);
    return output.toInt32Array();
  }

  /** A text that has too many tokens even if each were the longest of the vocabulary. */
  private refuseLong(text: string, numBefore: number, { numTokens, error }: TokenLimit): void {
    const maxUnits = this.algorithm.maxUnitsPerToken;
    if (error === undefined || maxUnits === undefined) return;
    if (numBefore + text.length / maxUnits > numTokens) throw error(numTokens);
  }

  encodePair(first: string, second: string, limit?: TokenLimit): Int32Array {
    const plain = { addSpecial: false, parseSpecial: false, limit };
    const { first: before, middle, last } = this.pairFrame;
    const texts = [this.encode(first, plain), this.encode(second, plain)] as const;
    return Int32Array.from([...before, ...texts[0], ...middle, ...texts[1], ...last]);
  }

  /** User-defined tokens are found in any text; the others only when special text is parsed. */
  private matcher(parseSpecial: boolean): SpecialMatcher {
    if (parseSpecial) {
      this.allSpecial ??= new SpecialMatcher(this.vocabulary, SPELLED_OUT, 0);
      return this.allSpecial;
    }
    this.userDefined ??= new SpecialMatcher(this.vocabulary, TokenFlag.userDefined, HIDDEN);
    return this.userDefined;
  }

  decode(tokenIds: ArrayLike<number>, options: DecodeOptions = {}): string {
    const { showSpecial = false } = options;
    const pieces: Uint8Array[] = [];
    let afterSpecial = true;
    for (let i = 0; i < tokenIds.length; i++) {
      const tokenId = tokenIds[i]!;
      let bytes = this.tokenBytes(tokenId);
      if (this.standsBetweenTexts(tokenId)) {
        afterSpecial ||= !this.prefixesFirstTextOnly;
      } else {
        const dropsSpace = afterSpecial && this.algorithm.addsSpacePrefix && bytes[0] === SPACE;
        if (dropsSpace) bytes = bytes.subarray(1);
        afterSpecial = false;
      }
      if (showSpecial || !this.vocabulary.has(tokenId, HIDDEN)) pieces.push(bytes);
    }
    return decodeUtf8(Buffer.concat(pieces));
  }

  /** Does encoding put a space after this token? Tokens of spaces come from the text itself. */
  private standsBetweenTexts(tokenId: number): boolean {
    if (!this.vocabulary.has(tokenId, SPELLED_OUT)) return false;
    return !startsWithMark(this.vocabulary.bytesOf(tokenId));
  }

  createDetokenizer(options: DecodeOptions = {}): Detokenizer {
    const { showSpecial = false } = options;
    const stream = new Utf8Stream();
    return {
      push: (tokenId) => {
        const bytes = this.tokenBytes(tokenId);
        if (!showSpecial && this.vocabulary.has(tokenId, HIDDEN)) return "";
        return stream.push(bytes);
      },
      end: () => stream.end(),
    };
  }

  tokenBytes(tokenId: number): Uint8Array {
    this.check(tokenId);
    if (this.vocabulary.has(tokenId, SPELLED_OUT)) return this.vocabulary.bytesOf(tokenId);
    return this.algorithm.pieceBytes(tokenId);
  }

  tokenText(tokenId: number): string {
    const bytes = Buffer.from(this.tokenBytes(tokenId));
    const text = bytes.toString("utf8");
    if (Buffer.from(text).equals(bytes)) return text;
    return Array.from(bytes, (byte) => {
      const isVisible = byte >= SPACE && byte < 0x7f;
      const hex = byte.toString(16).toUpperCase().padStart(2, "0");
      return isVisible ? String.fromCharCode(byte) : `<0x${hex}>`;
    }).join("");
  }

  isControl(tokenId: number): boolean {
    this.check(tokenId);
    return this.vocabulary.has(tokenId, TokenFlag.control);
  }

  isHidden(tokenId: number): boolean {
    this.check(tokenId);
    return this.vocabulary.has(tokenId, HIDDEN);
  }

  findToken(text: string): number | undefined {
    return this.vocabulary.find(text);
  }

  private check(tokenId: number): void {
    if (Number.isInteger(tokenId) && tokenId >= 0 && tokenId < this.vocabSize) return;
    throw new TinferError("usage", `token id ${tokenId} is not in the vocabulary`, {
      hint: `ids of this model go from 0 to ${this.vocabSize - 1}`,
    });
  }
}
