// What the kinds of tokenizers differ in: how ordinary text becomes tokens, and a token bytes.
// Special tokens, BOS and the like are the same for all and are handled by `model-tokenizer.ts`.
import type { TokenList } from "./token-list.ts";

export interface TextAlgorithm {
  /** Is a space put in front of text that begins the input or follows a special token? */
  readonly addsSpacePrefix: boolean;
  /** UTF-16 units that a token stands for at most; undefined where units may leave no token. */
  readonly maxUnitsPerToken: number | undefined;
  /**
   * Appends the tokens of `text`, which is well-formed and not empty; may stop after a word once
   * the output is full.
   */
  encodeText(text: string, afterSpecial: boolean, output: TokenList): void;
  /** The bytes of a token that is neither special nor user-defined. */
  pieceBytes(tokenId: number): Uint8Array;
}
