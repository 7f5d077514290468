// The one operating error of tinfer and the assertion for programmer errors.
// Messages name the cause; the hint names the next step. Only `cli/` and `server/` show them.

/** What went wrong, for programs; `exitCodeOf` maps it to a process exit code. */
export type ErrorCode =
  | "usage" // wrong flag, argument or setting
  | "notFound" // file, model, tensor or key is missing
  | "unreadable" // file exists but cannot be read
  | "invalidFile" // bytes that do not follow their format
  | "unsupported" // valid, but tinfer does not do it
  | "outOfMemory" // does not fit; the hint says what would
  | "contextOverflow" // prompt longer than the context
  | "noSpace" // disk is full
  | "network" // transfer failed
  | "checksum" // bytes differ from the published hash
  | "template" // chat template missing, wrong or raising
  | "cancelled" // stopped by the user or the client
  | "overloaded" // queue is full
  | "native"; // the native library reported a failure

export interface ErrorOptions {
  /** The next step for a person, as a sentence or a command. */
  hint?: string;
  cause?: unknown;
  /** The setting at fault as the code calls it, e.g. `topK`; the message has the same word. */
  field?: string;
}

export class TinferError extends Error {
  override readonly name = "TinferError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly field: string | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.field = options.field;
  }
}

/** 0 is success; 1 failed, 2 wrong usage, 130 interrupted (143 by SIGTERM, see main.ts). */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof TinferError)) return 1;
  if (error.code === "usage") return 2;
  return error.code === "cancelled" ? 130 : 1;
}

/** Throws a plain Error: a failed assertion is a bug in tinfer, never bad input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}

/** The candidate nearest to `word` by edit distance, or undefined when none is near. */
export function nearestMatch(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 2)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein distance by one rolling row. */
function editDistance(a: string, b: string): number {
  const row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    let diagonal = row[0]!;
    row[0] = i;
    for (let j = 1; j <= b.length; j++) {
      const substitution = diagonal + (a[i - 1] === b[j - 1] ? 0 : 1);
      diagonal = row[j]!;
      row[j] = Math.min(substitution, row[j]! + 1, row[j - 1]! + 1);
    }
  }
  return row[b.length]!;
}
