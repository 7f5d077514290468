// Cuts a text into the words within which BPE merges, as a pretokenizer of the table says.
import type { DigitGroups, Pretokenizer, Stage } from "./pretokenizer-table.ts";

/** The ends of consecutive words, as UTF-16 offsets. */
export class WordEnds {
  private ends = new Int32Array(256);
  private count = 0;

  get length(): number {
    return this.count;
  }

  at(index: number): number {
    return this.ends[index]!;
  }

  /** A word of no length is dropped. */
  push(end: number): void {
    if (end === (this.count === 0 ? 0 : this.ends[this.count - 1]!)) return;
    if (this.count === this.ends.length) {
      const larger = new Int32Array(this.ends.length * 2);
      larger.set(this.ends);
      this.ends = larger;
    }
    this.ends[this.count++] = end;
  }
}

interface Cutter {
  /** Appends the ends of the pieces of `text`, which starts at `offset` in the whole. */
  cut(text: string, offset: number, ends: WordEnds): void;
}

export class WordSplitter {
  private readonly cutters: readonly Cutter[];

  constructor(pretokenizer: Pretokenizer) {
    this.cutters = pretokenizer.stages.map(createCutter);
  }

  /** `text` must be well-formed. */
  split(text: string): WordEnds {
    let ends = new WordEnds();
    this.cutters[0]!.cut(text, 0, ends);
    for (let stage = 1; stage < this.cutters.length; stage++) {
      const pieces = ends;
      ends = new WordEnds();
      let start = 0;
      for (let i = 0; i < pieces.length; i++) {
        const end = pieces.at(i);
        // A stage sees nothing of the pieces around: what ends a piece ends the text.
        this.cutters[stage]!.cut(text.slice(start, end), start, ends);
        start = end;
      }
    }
    return ends;
  }
}

function createCutter(stage: Stage): Cutter {
  return typeof stage === "string" ? new RegexCutter(stage) : new DigitCutter(stage);
}

/** Each match is a piece, and each gap between matches. */
class RegexCutter implements Cutter {
  /** Matches where the last match ended, without making a match object: the usual case. */
  private readonly adjacent: RegExp;
  private readonly search: RegExp;

  constructor(pattern: string) {
    this.adjacent = new RegExp(pattern, "vy");
    this.search = new RegExp(pattern, "vg");
  }

  cut(text: string, offset: number, ends: WordEnds): void {
    const { adjacent, search } = this;
    let at = 0;
    while (at < text.length) {
      adjacent.lastIndex = at;
      if (adjacent.test(text)) {
        at = adjacent.lastIndex;
      } else {
        search.lastIndex = at;
        const match = search.exec(text);
        if (match === null) break;
        ends.push(offset + match.index);
        at = search.lastIndex;
      }
      ends.push(offset + at);
    }
    ends.push(offset + text.length);
  }
}

class DigitCutter implements Cutter {
  private readonly runs: RegExp;
  private readonly groups: DigitGroups;

  constructor(groups: DigitGroups) {
    this.groups = groups;
    this.runs = new RegExp(groups.runs, "vg");
  }

  cut(text: string, offset: number, ends: WordEnds): void {
    const { cutAtStart, cutAtEnd } = this.groups;
    for (const match of text.matchAll(this.runs)) {
      // Digits outside the basic plane are two units long, so groups are counted in characters.
      const characters = [...match[0]];
      const isWhole = characters.length % 3 === 0;
      let at = offset + match.index;
      if (cutAtStart === "always" || (cutAtStart === "whole" && isWhole)) ends.push(at);
      characters.forEach((character, index) => {
        at += character.length;
        const remaining = characters.length - index - 1;
        if (remaining % 3 === 0 && (remaining > 0 || cutAtEnd)) ends.push(at);
      });
    }
    ends.push(offset + text.length);
  }
}
