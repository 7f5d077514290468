// Stop strings in a stream of text: what may be shown now, what must wait because it may become a
// stop string, and where the text ends.
import { TinferError } from "../core/errors.ts";

export interface StopResult {
  /** Safe to show. */
  readonly text: string;
  /** The stop string that was met, or undefined. */
  readonly stopped: string | undefined;
}

/** Follows one stop string through the text, one code unit at a time (Knuth, Morris, Pratt). */
class StopString {
  readonly text: string;
  /** fallback[n]: the longest proper prefix that also ends the prefix of length n. */
  readonly #fallback: Int32Array;
  /** Length of the prefix that the text now ends with. */
  matchedLen = 0;

  constructor(text: string) {
    this.text = text;
    this.#fallback = new Int32Array(text.length + 1);
    for (let i = 1; i < text.length; i++) {
      this.advance(text.charCodeAt(i));
      this.#fallback[i + 1] = this.matchedLen;
    }
    this.matchedLen = 0;
  }

  /** Returns true when the string is complete. */
  advance(codeUnit: number): boolean {
    while (this.matchedLen > 0 && this.text.charCodeAt(this.matchedLen) !== codeUnit) {
      this.matchedLen = this.#fallback[this.matchedLen]!;
    }
    if (this.text.charCodeAt(this.matchedLen) === codeUnit) this.matchedLen++;
    return this.matchedLen === this.text.length;
  }
}

/**
 * The stop string that is complete first ends the text (of several complete at once, the longest);
 * so the outcome does not depend on how the text was cut into pieces.
 */
export class StopMatcher {
  readonly #stops: readonly StopString[];
  /** End of the text so far that may be the beginning of a stop string. */
  #held = "";
  #stopped: string | undefined;

  constructor(stopStrings: readonly string[]) {
    if (stopStrings.includes("")) {
      throw new TinferError("usage", "a stop string is empty", {
        hint: "leave it out, or name the text that ends the answer",
      });
    }
    this.#stops = stopStrings.map((text) => new StopString(text));
  }

  /** Adds text; after a stop it is dropped. */
  push(text: string): StopResult {
    if (this.#stopped !== undefined) return { text: "", stopped: this.#stopped };
    if (this.#stops.length === 0) return { text, stopped: undefined };
    const waiting = this.#held + text;
    for (let i = this.#held.length; i < waiting.length; i++) {
      const stop = this.#advance(waiting.charCodeAt(i));
      if (stop === undefined) continue;
      this.#stopped = stop;
      this.#held = "";
      return { text: waiting.slice(0, i + 1 - stop.length), stopped: stop };
    }
    let heldLen = 0;
    for (const stop of this.#stops) heldLen = Math.max(heldLen, stop.matchedLen);
    this.#held = waiting.slice(waiting.length - heldLen);
    return { text: waiting.slice(0, waiting.length - heldLen), stopped: undefined };
  }

  /** The text has ended without a stop string: what was still held back. */
  end(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  #advance(codeUnit: number): string | undefined {
    let longest: string | undefined;
    for (const stop of this.#stops) {
      if (stop.advance(codeUnit) && stop.text.length > (longest?.length ?? 0)) longest = stop.text;
    }
    return longest;
  }
}
