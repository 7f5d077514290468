// JSON read as Python reads it, for messages and tools that a template prints again: 2.0
// stays a float, integers keep all digits, and keys keep their order even if they are digits.
import { TinferError } from "../core/errors.ts";

/** A number that was written as a float: 2.0 and 1e3 print with their point in a template. */
export class PythonFloat {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
  toJSON(): number {
    return this.value;
  }
}

/** Deeper input is refused rather than overflowing the stack. */
const maxDepth = 512;

const numberPattern = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const stringPattern = /"[^"\\]*(?:\\.[^"\\]*)*"/y;
const literals: readonly (readonly [string, unknown])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
];

/**
 * Like `JSON.parse`, except that a float which JavaScript would show as an integer becomes a
 * `PythonFloat`, an integer beyond 2^53 a bigint, and an object with keys that JavaScript
 * would reorder a `Map`. Throws a TinferError "usage" that names the position.
 */
export function parsePythonJson(text: string): unknown {
  const reader = new JsonReader(text);
  const value = reader.readValue(0);
  reader.expectEnd();
  return value;
}

class JsonReader {
  readonly #text: string;
  #position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  readValue(depth: number): unknown {
    if (depth > maxDepth) this.#fail(`nested deeper than ${maxDepth} levels`);
    this.#skipSpace();
    const first = this.#text[this.#position];
    if (first === "{") return this.#readObject(depth);
    if (first === "[") return this.#readArray(depth);
    if (first === '"') return this.#readString();
    for (const [word, value] of literals) {
      if (this.#text.startsWith(word, this.#position)) {
        this.#position += word.length;
        return value;
      }
    }
    return this.#readNumber();
  }

  expectEnd(): void {
    this.#skipSpace();
    if (this.#position < this.#text.length) this.#fail("expected the end");
  }

  #readObject(depth: number): unknown {
    const entries = new Map<string, unknown>();
    this.#readItems("}", () => {
      this.#skipSpace();
      if (this.#text[this.#position] !== '"') this.#fail("expected a key in quotes");
      const key = this.#readString();
      this.#skipSpace();
      if (this.#text[this.#position] !== ":") this.#fail("expected ':'");
      this.#position++;
      entries.set(key, this.readValue(depth + 1));
    });
    // JavaScript would move digit keys to the front, and treat __proto__ as no field at all.
    const needsMap = [...entries.keys()].some((key) => /^(?:\d+|__proto__)$/.test(key));
    return needsMap ? entries : Object.fromEntries(entries);
  }

  #readArray(depth: number): unknown[] {
    const items: unknown[] = [];
    this.#readItems("]", () => {
      items.push(this.readValue(depth + 1));
    });
    return items;
  }

  #readItems(close: string, readItem: () => void): void {
    this.#position++;
    this.#skipSpace();
    if (this.#text[this.#position] === close) {
      this.#position++;
      return;
    }
    for (;;) {
      readItem();
      this.#skipSpace();
      const mark = this.#text[this.#position];
      if (mark !== close && mark !== ",") this.#fail(`expected ',' or '${close}'`);
      this.#position++;
      if (mark === close) return;
    }
  }

  #readString(): string {
    stringPattern.lastIndex = this.#position;
    const match = stringPattern.exec(this.#text);
    if (match === null) this.#fail("unterminated string");
    try {
      const value = JSON.parse(match[0]) as string;
      this.#position += match[0].length;
      return value;
    } catch {
      this.#fail("invalid character or escape in a string");
    }
  }

  #readNumber(): unknown {
    numberPattern.lastIndex = this.#position;
    const match = numberPattern.exec(this.#text);
    if (match === null) this.#fail("expected a value");
    this.#position += match[0].length;
    const value = Number(match[0]);
    if (match[1] === undefined && match[2] === undefined) {
      return Number.isSafeInteger(value) ? value + 0 : BigInt(match[0]);
    }
    return Number.isInteger(value) ? new PythonFloat(value) : value;
  }

  #skipSpace(): void {
    while (/[ \t\n\r]/.test(this.#text[this.#position] ?? "")) this.#position++;
  }

  #fail(problem: string): never {
    const before = this.#text.slice(0, this.#position);
    const line = before.split("\n").length;
    const column = this.#position - before.lastIndexOf("\n");
    throw new TinferError("usage", `invalid JSON at line ${line}, column ${column}: ${problem}`);
  }
}
