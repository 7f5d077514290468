// Where a text with U+2581 for spaces can be cut so that no merge crosses the cut: in front of a
// space mark, unless some token has a space mark inside after the same character. Merging word by
// word then gives exactly the tokens of merging the whole text, and words can be cached.
import type { ByteStringIndex } from "./byte-string-index.ts";
import { SPACE_MARK } from "./vocabulary.ts";

const MARK_UNIT = SPACE_MARK.charCodeAt(0);

export class SpaceCuts {
  /** By UTF-16 unit: is there a token in which this unit stands before a space mark? */
  private readonly joins = new Uint8Array(2 ** 16);

  /** `strings` are tokens, or merges written "left right". */
  constructor(strings: ByteStringIndex) {
    const { bytes, starts, ends } = strings;
    for (let index = 0; index < strings.length; index++) {
      const start = starts[index]!;
      const last = ends[index]! - 2;
      for (let at = start + 1; at < last; at++) {
        if (bytes[at] !== 0xe2 || bytes[at + 1] !== 0x96 || bytes[at + 2] !== 0x81) continue;
        // The space of a merge joins what stands on both of its sides.
        const before = bytes[at - 1] === 0x20 ? at - 1 : at;
        if (before > start) this.joins[lastUnit(bytes, start, before)] = 1;
      }
    }
    this.joins[MARK_UNIT] = 1;
  }

  /** The first cut after `start`, or `end`. */
  next(text: string, start: number, end: number): number {
    let at = start;
    do {
      at = text.indexOf(SPACE_MARK, at + 1);
      if (at < 0 || at >= end) return end;
    } while (this.joins[text.charCodeAt(at - 1)] !== 0);
    return at;
  }
}

/** The last UTF-16 unit of the character that ends at `end`. */
function lastUnit(bytes: Uint8Array, start: number, end: number): number {
  let lead = end - 1;
  while (lead > start && (bytes[lead]! & 0xc0) === 0x80) lead--;
  const text = Buffer.from(bytes.subarray(lead, end)).toString("utf8");
  return text.charCodeAt(text.length - 1);
}
