// The one place that writes to the terminal: results to stdout, everything said to people to
// stderr, colour and progress bars only where somebody looks. The only user of consola and
// cli-progress.
import { writeSync } from "node:fs";
import { SingleBar } from "cli-progress";
import { createConsola } from "consola";
import { TinferError } from "../core/errors.ts";
import { messageInFlags } from "./flags.ts";
import { printable } from "./table.ts";

export { formatBytes } from "../core/format-bytes.ts";

const log = createConsola({ stdout: process.stderr, stderr: process.stderr, level: 3 });

export function isTerminal(): boolean {
  return process.stdout.isTTY === true;
}

/** Colour on stderr: somebody looks, and NO_COLOR is not set (no-color.org). */
function useColor(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY === true && !process.env["NO_COLOR"] && process.env["TERM"] !== "dumb";
}

export function dim(text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return useColor(stream) ? `\x1b[2m${text}\x1b[22m` : text;
}
export function bold(text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return useColor(stream) ? `\x1b[1m${text}\x1b[22m` : text;
}

/** What the eye should find: prompts, the program's name. */
export function accent(text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return useColor(stream) ? `\x1b[36m${text}\x1b[39m` : text;
}

/** The mark of an error. */
export function failure(text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return useColor(stream) ? `\x1b[31m${text}\x1b[39m` : text;
}

/** Writes text to stdout now, all of it. Throws `OutputClosed` when the reader has gone. */
export function write(text: string): void {
  const bytes = Buffer.from(text);
  for (let offset = 0; offset < bytes.length; ) {
    try {
      offset += writeSync(1, bytes, offset);
    } catch (error) {
      const code = (error as { code?: string }).code;
      // EIO: the terminal was closed.
      if (code === "EPIPE" || code === "EIO") throw new OutputClosed();
      if (code !== "EAGAIN") throw error;
      Bun.sleepSync(1);
    }
  }
}

/** The reader of stdout has gone (`| head`): the program ends quietly with success. */
export class OutputClosed extends Error {}

/** One line on stdout. */
export function out(line: string): void {
  write(`${line}\n`);
}

/** One JSON document on stdout. */
export function outJson(value: unknown): void {
  out(JSON.stringify(value));
}

/** A line to the person, on stderr. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

export function warn(line: string): void {
  log.warn(line);
}

/** An error as a person should see it: what, then the next step; a stack only for bugs. */
export function sayError(error: unknown): void {
  if (error instanceof TinferError) {
    // Messages quote names from files, which may hold anything.
    const message = printable(messageInFlags(error));
    // What a person stopped is no error to them.
    if (error.code === "cancelled") say(dim(message, process.stderr));
    else log.error(message);
    if (error.hint !== undefined) say(`  ${printable(error.hint)}`);
    return;
  }
  if (isSystemError(error)) {
    log.error(printable(error.message));
    say(`  ${nextSteps[error.code ?? ""] ?? "check the path, its permissions and the disk"}`);
    return;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  log.error(`this is a bug in tinfer, please report it:\n${text}`);
}

const mayWrite = "check that this user may write there, or choose another place";
const moreSpace = "free some space, or choose another disk";

/** What helps against refusals of the operating system. */
const nextSteps: Readonly<Record<string, string>> = {
  ENOENT: "check the path: its folder must exist",
  EISDIR: "give a file, not a folder",
  ...{ EACCES: mayWrite, EPERM: mayWrite, EROFS: mayWrite },
  ...{ ENOSPC: moreSpace, EDQUOT: moreSpace },
};

/** The operating system refused a file or stream: full disk, no permission, a folder. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error && "code" in error;
}

/** Progress of long work: a bar on a terminal, a line now and then elsewhere. */
export class Progress {
  readonly #label: string;
  readonly #format: (value: number) => string;
  #bar: SingleBar | undefined;
  #lastLineAt = 0;
  #lastLine = "";

  constructor(label: string, format: (value: number) => string = String) {
    this.#label = label;
    this.#format = format;
  }

  update(value: number, total: number | undefined, note = ""): void {
    const text = `${this.#format(value)}${total === undefined ? "" : ` of ${this.#format(total)}`}`;
    if (process.stderr.isTTY && total !== undefined) {
      this.#bar ??= this.#startBar(total);
      this.#bar.setTotal(total);
      this.#bar.update(value, { text, note });
      return;
    }
    const now = performance.now();
    if (now - this.#lastLineAt < 2000 && value !== total) return;
    this.#lastLineAt = now;
    const line = `${this.#label}: ${text} ${note}`.trimEnd();
    if (line !== this.#lastLine) say(line);
    this.#lastLine = line;
  }

  #startBar(total: number): SingleBar {
    const bar = new SingleBar({
      format: `${this.#label} {bar} {percentage}% {text} {note}`,
      barCompleteChar: "█",
      barIncompleteChar: "░",
      hideCursor: true,
      clearOnComplete: true,
      stream: process.stderr,
    });
    bar.start(total, 0, { text: "", note: "" });
    return bar;
  }

  /** Removes the bar. */
  done(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
