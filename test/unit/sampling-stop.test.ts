import { describe, expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import { uniform } from "../../src/sampling/philox.ts";
import { StopMatcher } from "../../src/sampling/stop.ts";

/** Pushes the pieces; what was shown after each, and the whole outcome. */
function follow(stops: readonly string[], pieces: readonly string[]) {
  const matcher = new StopMatcher(stops);
  const shown: string[] = [];
  let stopped: string | undefined;
  for (const piece of pieces) {
    const result = matcher.push(piece);
    shown.push(result.text);
    stopped = result.stopped;
  }
  shown.push(matcher.end());
  return { shown, text: shown.join(""), stopped };
}

describe("StopMatcher", () => {
  test("passes text through when there is nothing to stop at", () => {
    expect(follow([], ["a", "b"])).toEqual({
      shown: ["a", "b", ""],
      text: "ab",
      stopped: undefined,
    });
  });

  test("holds back only what may become a stop string", () => {
    const { shown, stopped } = follow(["\nUser:"], ["Hello", "\n", "Us", "age", "\nUser", "!"]);
    expect(shown).toEqual(["Hello", "", "", "\nUsage", "", "\nUser!", ""]);
    expect(stopped).toBeUndefined();
  });

  test("never shows the stop string, and drops what follows", () => {
    const { text, stopped } = follow(["<end>"], ["one <e", "nd> two", " three"]);
    expect({ text, stopped }).toEqual({ text: "one ", stopped: "<end>" });
  });

  test("shows what was held back when the text ends", () => {
    expect(follow(["<end>"], ["one <en"])).toEqual({
      shown: ["one ", "<en"],
      text: "one <en",
      stopped: undefined,
    });
  });

  test("finds a stop string that overlaps a false start", () => {
    expect(follow(["aab"], ["a", "a", "a", "b"]).text).toBe("a");
    expect(follow(["ababc"], ["abab", "abc"]).text).toBe("ab");
  });

  test("the first one complete wins, of several at once the longest", () => {
    expect(follow(["abcd", "c"], ["abcd"])).toMatchObject({ text: "ab", stopped: "c" });
    expect(follow(["c", "bc"], ["abc"])).toMatchObject({ text: "a", stopped: "bc" });
    expect(follow(["ab", "abc"], ["xabc"])).toMatchObject({ text: "x", stopped: "ab" });
  });

  test("keeps characters outside the basic plane whole", () => {
    expect(follow(["😀!"], ["😁", "😀", "?"]).shown).toEqual(["😁", "", "😀?", ""]);
  });

  test("refuses an empty stop string", () => {
    expect(() => new StopMatcher(["a", ""])).toThrow(TinferError);
  });

  test("the outcome is that of a plain search, however the text is cut", () => {
    let draws = 0;
    const below = (n: number) => Math.floor(uniform(77, 0, draws++) * n);
    const word = (length: number) => Array.from({ length }, () => "ab"[below(2)]).join("");
    for (let round = 0; round < 2000; round++) {
      const stops = Array.from({ length: 1 + below(3) }, () => word(1 + below(6)));
      const text = word(below(24));
      const pieces: string[] = [];
      for (let at = 0; at < text.length; ) {
        const length = 1 + below(5);
        pieces.push(text.slice(at, at + length));
        at += length;
      }
      const followed = follow(stops, pieces);
      const expected = search(stops, text);
      const outcome = { stops, pieces, shown: followed.text, stopped: followed.stopped };
      expect(outcome).toEqual({ stops, pieces, shown: expected.text, stopped: expected.stopped });
    }
  });
});

function search(stops: readonly string[], text: string) {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    const stopped = found.sort((a, b) => b.length - a.length)[0];
    if (stopped !== undefined) return { text: text.slice(0, end - stopped.length), stopped };
  }
  return { text, stopped: undefined };
}
