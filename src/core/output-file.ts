// Where the files go that a person names for results: through links to the file behind them, never
// over a folder or a device, and under the final name only once they are complete.
import {
  accessSync,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { TinferError } from "./errors.ts";

/** The file that a result for `path` makes or replaces. Throws where no file can be. */
export function outputFile(path: string): string {
  if (path === "") {
    throw new TinferError("usage", "the name of the file to write is empty", { hint: "give one" });
  }
  try {
    const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink();
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats !== undefined && !stats.isFile()) {
      throw new TinferError("usage", `${path} is ${kindOf(stats)}`, { hint: "give a file name" });
    }
    if (stats !== undefined) return isLink ? realpathSync(path) : path;
    const folder = dirname(path);
    // A link to what does not exist yet; circles have failed above.
    if (isLink) return outputFile(resolve(realpathSync(folder), readlinkSync(path)));
    accessSync(`${folder}/.`, constants.W_OK);
    return path;
  } catch (cause) {
    throw writeError(path, cause);
  }
}

function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return "a folder";
  if (stats.isFIFO()) return "a pipe";
  return stats.isSocket() ? "a socket" : "a device";
}

/**
 * A file that is written from its beginning to its end, beside its place until it is complete. A
 * pipe, or a device such as a terminal, takes the bytes as they come.
 */
export class SequentialFile implements Disposable {
  readonly #path: string;
  /** undefined: the bytes go there at once. */
  #partial: string | undefined;
  #file: number | undefined;

  constructor(path: string) {
    const stats = statSync(path, { throwIfNoEntry: false });
    const isStream = stats?.isFIFO() || stats?.isCharacterDevice();
    this.#path = isStream ? path : outputFile(path);
    this.#partial = isStream ? undefined : `${this.#path}.partial`;
    try {
      this.#file = openSync(this.#partial ?? path, "w");
    } catch (cause) {
      throw writeError(path, cause);
    }
  }

  write(bytes: Uint8Array): void {
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#file!, bytes, at);
    } catch (cause) {
      this[Symbol.dispose]();
      throw writeError(this.#path, cause);
    }
  }

  /** After the last byte. */
  place(): void {
    try {
      this.#close();
      if (this.#partial !== undefined) renameSync(this.#partial, this.#path);
      this.#partial = undefined;
    } catch (cause) {
      throw writeError(this.#path, cause);
    }
  }

  #close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  /** Leaves what was there before, unless the file was placed. */
  [Symbol.dispose](): void {
    this.#close();
    if (this.#partial !== undefined) rmSync(this.#partial, { force: true });
  }
}

/** The error of a failed write to `path` as a person should see it. */
export function writeError(path: string, cause: unknown): unknown {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new TinferError("noSpace", `the disk is full: ${path} could not be written`, {
      hint: "free some space or choose another disk",
      cause,
    });
  }
  // Errors without a code are not about the file.
  if (code === "" || cause instanceof TinferError) return cause;
  return new TinferError("unreadable", `${path} cannot be written: ${(cause as Error).message}`, {
    hint: "check that the folder exists and that this user may write in it",
    cause,
  });
}
