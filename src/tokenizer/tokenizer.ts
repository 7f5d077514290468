// What a tokenizer is to the rest of tinfer: text to token ids and back. The kinds are built by
// `create-tokenizer.ts`; nothing outside this folder knows which kind a model has.

/** How far a text is encoded: no work goes into tokens that nobody wants. */
export interface TokenLimit {
  /** A text that is sure to have more is not encoded at all, where there is an error. */
  readonly numTokens: number;
  /** Encoding ends after more than these; not less than `numTokens`. */
  readonly numCounted: number;
  /** Thrown where there are more; undefined: the beginning of the encoding is what is wanted. */
  readonly error?: (moreThan: number) => Error;
}

export interface EncodeOptions {
  /** Add BOS/EOS/CLS/SEP as the metadata asks. Default: true. */
  addSpecial?: boolean;
  /** The text of a special token becomes its id; otherwise it is ordinary text. Default: true. */
  parseSpecial?: boolean;
  limit?: TokenLimit | undefined;
}

export interface DecodeOptions {
  /** Control tokens appear as their text instead of being left out. Default: false. */
  showSpecial?: boolean;
}

/** Ids of the tokens with a role; undefined where the vocabulary has none. */
export interface SpecialTokens {
  bosId?: number;
  eosId?: number;
  /** Ends a turn of a chat. */
  eotId?: number;
  unknownId?: number;
  separatorId?: number;
  paddingId?: number;
  maskId?: number;
  /** Every token after which a model has nothing more to say. */
  endOfGenerationIds: ReadonlySet<number>;
}

/** Turns a stream of token ids into text. Keeps a leading space: the text continues a prompt. */
export interface Detokenizer {
  /** The characters that this token completes; a character in parts waits for its last part. */
  push(tokenId: number): string;
  /** What is left: a character whose end never came is U+FFFD. */
  end(): string;
}

export interface Tokenizer {
  /** The kind and, where it has one, its pretokenizer: "llama", "gpt2/qwen2". */
  readonly kind: string;
  readonly vocabSize: number;
  readonly specialTokens: SpecialTokens;
  readonly addsBos: boolean;
  readonly addsEos: boolean;

  /** Lone surrogates in `text` count as U+FFFD. */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** Two texts as models see them that compare texts, e.g. [CLS] first [SEP] second [SEP]. */
  encodePair(first: string, second: string, limit?: TokenLimit): Int32Array;
  /** The inverse of `encode`: drops the space that encoding put in front. */
  decode(tokenIds: ArrayLike<number>, options?: DecodeOptions): string;
  createDetokenizer(options?: DecodeOptions): Detokenizer;

  /** The bytes that a token stands for; for control tokens those of their text. */
  tokenBytes(tokenId: number): Uint8Array;
  /** The piece for display; bytes that are no text are shown as `<0xE2>`. */
  tokenText(tokenId: number): string;
  isControl(tokenId: number): boolean;
  /** Left out of text unless special tokens are shown: control tokens and the unknown one. */
  isHidden(tokenId: number): boolean;
  /** The id of the token with exactly this text in the vocabulary, for example "<think>". */
  findToken(text: string): number | undefined;
}
