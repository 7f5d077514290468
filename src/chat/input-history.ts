// What was typed, for the arrow keys, across sessions: one JSON string per line, so that messages
// of many lines are one entry. Bounded, and readable by its owner alone.
import { appendFileSync, chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const maxEntries = 1000;
/** A pasted book is not worth its place in the history. */
const maxEntryLen = 20_000;

export class InputHistory {
  /** Oldest first. */
  readonly #entries: string[];
  readonly #path: string | undefined;
  /** Which entry is shown; the number of entries: what is being typed. */
  #shown: number;
  #typed = "";

  /** Without a folder nothing is kept on disk. */
  constructor(folder: string | undefined) {
    this.#path = folder === undefined ? undefined : join(folder, "chat-history.jsonl");
    this.#entries = this.#path === undefined ? [] : readEntries(this.#path);
    this.#shown = this.#entries.length;
  }

  get entries(): readonly string[] {
    return this.#entries;
  }

  add(entry: string): void {
    if (entry.trim() !== "" && entry !== this.#entries.at(-1) && entry.length <= maxEntryLen) {
      this.#entries.push(entry);
      if (this.#path !== undefined) appendEntry(this.#path, entry);
      if (this.#entries.length > maxEntries) this.#entries.shift();
    }
    this.#shown = this.#entries.length;
    this.#typed = "";
  }

  /** The entry before the shown one; `line` is what the person sees now. */
  previous(line: string): string | undefined {
    if (this.#shown === this.#entries.length) this.#typed = line;
    if (this.#shown === 0) return undefined;
    return this.#entries[--this.#shown];
  }

  /** The entry after the shown one, at last what was being typed. */
  next(): string | undefined {
    if (this.#shown === this.#entries.length) return undefined;
    this.#shown++;
    return this.#entries[this.#shown] ?? this.#typed;
  }
}

function readEntries(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return []; // The first chat, or a folder that is not ours: history is a convenience.
  }
  const entries = text.split("\n").flatMap((line) => {
    try {
      const entry: unknown = JSON.parse(line);
      return typeof entry === "string" ? [entry] : [];
    } catch {
      return []; // The last line of a crash, or the end of the file.
    }
  });
  const kept = entries.slice(-maxEntries);
  if (entries.length > 2 * maxEntries) {
    try {
      writeFileSync(path, kept.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
    } catch {
      // A read-only history is still a history.
    }
  }
  return kept;
}

function appendEntry(path: string, entry: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    appendFileSync(path, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
    chmodSync(path, 0o600);
  } catch {
    // Without a place to write, the history lasts as long as this chat.
  }
}
