// Files that are written part by part, such as GGUF by tensors, under `.partial` names and moved in
// place when all are complete. A journal says which parts are finished and what their bytes hash
// to, so that the same work goes on after a kill, a full disk or a power cut.
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, dirname } from "node:path";
import { assert, TinferError } from "../core/errors.ts";
import { formatBytes } from "../core/format-bytes.ts";
import { describeOwner, type FileLock, isLock, tryLock } from "../core/lock.ts";
import { outputFile, writeError } from "../core/output-file.ts";

export interface FilePart {
  readonly offset: number;
  readonly bytes: number;
}

/** One of the files that are placed together. */
export interface FileOutline {
  readonly path: string;
  readonly totalBytes: number;
  /** The first bytes, known beforehand; written at once. */
  readonly head: Uint8Array;
  /** What is written in any order; bytes between parts are zero. */
  readonly parts: readonly FilePart[];
}

const rereadBytes = 4 * 2 ** 20;
const partialPath = (path: string) => `${path}.partial`;
const lockPath = (path: string) => `${path}.partial.lock`;

export class ResumableFiles implements Disposable {
  readonly #outlines: readonly FileOutline[];
  readonly #journalPath: string;
  readonly #descriptors: number[] = [];
  readonly #locks: FileLock[] = [];
  /** SHA-256 of finished parts, by file and part. */
  readonly #finished = new Map<string, string>();

  /**
   * `identity` is equal for equal work: what was written for another is not gone on with. Throws
   * where another process writes one of the files at this moment.
   */
  constructor(outlines: readonly FileOutline[], identity: string) {
    this.#outlines = outlines.map((outline) => ({ ...outline, path: outputFile(outline.path) }));
    const first = this.#outlines[0]!.path;
    this.#journalPath = `${first}.partial.journal`;
    try {
      for (const { path } of this.#outlines) this.#locks.push(lockOf(path));
      if (!this.#readJournal(identity)) this.#discard();
      checkSpace(this.#outlines);
      for (const { path, totalBytes, head } of this.#outlines) {
        const partial = partialPath(path);
        const descriptor = openSync(partial, existsSync(partial) ? "r+" : "w+");
        this.#descriptors.push(descriptor);
        ftruncateSync(descriptor, totalBytes);
        writeAt(descriptor, head, 0);
      }
      writeFileSync(this.#journalPath, this.#journalText(identity));
    } catch (cause) {
      this[Symbol.dispose]();
      throw writeError(first, cause);
    }
  }

  #journalText(identity: string): string {
    const lines = [JSON.stringify({ identity })];
    for (const [key, sha256] of this.#finished) lines.push(JSON.stringify({ key, sha256 }));
    return `${lines.join("\n")}\n`;
  }

  /** Takes over what the journal of the same work lists; false: there is none. */
  #readJournal(identity: string): boolean {
    if (!existsSync(this.#journalPath)) return false;
    // A kill may have cut the last line: it then says nothing.
    const lines = readFileSync(this.#journalPath, "utf8").split("\n").slice(0, -1);
    const entries = lines.flatMap((line): Record<string, string>[] => {
      try {
        return [JSON.parse(line) as Record<string, string>];
      } catch {
        return [];
      }
    });
    if (entries[0]?.["identity"] !== identity) return false;
    for (const { key, sha256 } of entries.slice(1)) {
      if (key !== undefined && sha256 !== undefined) this.#finished.set(key, sha256);
    }
    return true;
  }

  /** Removes what is there under our names. */
  #discard(): void {
    for (const { path } of this.#outlines) rmSync(partialPath(path), { force: true });
    rmSync(this.#journalPath, { force: true });
  }

  /** Whether an earlier run finished this part and its bytes are still what they were. */
  isFinished(file: number, part: number): boolean {
    const key = `${file}.${part}`;
    const wanted = this.#finished.get(key);
    if (wanted === undefined) return false;
    const { offset, bytes } = this.#outlines[file]!.parts[part]!;
    if (hashRange(this.#descriptors[file]!, offset, bytes) === wanted) return true;
    this.#finished.delete(key);
    return false;
  }

  /** Writes a part from its chunks, yielding after each, and notes it as finished. */
  *write(file: number, part: number, chunks: Iterable<Uint8Array>): Generator<number> {
    const { path, parts } = this.#outlines[file]!;
    const { offset, bytes } = parts[part]!;
    const hash = new Bun.CryptoHasher("sha256");
    let written = 0;
    for (const chunk of chunks) {
      assert(written + chunk.length <= bytes, `part ${part} of ${path} passes its end`);
      try {
        writeAt(this.#descriptors[file]!, chunk, offset + written);
      } catch (cause) {
        throw interrupted(path, cause);
      }
      hash.update(chunk);
      written += chunk.length;
      for (const lock of this.#locks) lock.refresh();
      yield chunk.length;
    }
    assert(written === bytes, `part ${part} of ${path} has ${written} of ${bytes} bytes`);
    const sha256 = hash.digest("hex");
    try {
      appendFileSync(this.#journalPath, `${JSON.stringify({ key: `${file}.${part}`, sha256 })}\n`);
    } catch (cause) {
      throw interrupted(path, cause);
    }
  }

  /** Moves the complete files in place; the journal goes last. */
  place(): void {
    try {
      for (const descriptor of this.#descriptors) fsyncSync(descriptor);
      for (const { path } of this.#outlines) renameSync(partialPath(path), path);
      rmSync(this.#journalPath);
    } catch (cause) {
      throw writeError(this.#outlines[0]!.path, cause);
    }
  }

  [Symbol.dispose](): void {
    for (const descriptor of this.#descriptors.splice(0)) closeSync(descriptor);
    for (const lock of this.#locks.splice(0)) lock[Symbol.dispose]();
  }
}

/** The right to write `path`; of a process that has died it is taken over. */
function lockOf(path: string): FileLock {
  const result = tryLock(lockPath(path));
  if (isLock(result)) return result;
  throw new TinferError("overloaded", `${describeOwner(result)} is writing ${path}`, {
    hint: `wait for it, or give another name; if it is no tinfer, delete ${lockPath(path)}`,
  });
}

function writeAt(descriptor: number, chunk: Uint8Array, position: number): void {
  for (let done = 0; done < chunk.length; ) {
    done += writeSync(descriptor, chunk, done, chunk.length - done, position + done);
  }
}

/** The error of a write that failed half-way: what is finished is not lost. */
function interrupted(path: string, cause: unknown): unknown {
  const error = writeError(path, cause);
  if (!(error instanceof TinferError)) return error;
  const hint = `${error.hint}; then run the same command again: finished tensors are kept`;
  return new TinferError(error.code, error.message, { hint, cause });
}

function hashRange(descriptor: number, offset: number, bytes: number): string | undefined {
  if (fstatSync(descriptor).size < offset + bytes) return undefined;
  const hash = new Bun.CryptoHasher("sha256");
  const buffer = new Uint8Array(Math.min(rereadBytes, bytes));
  for (let done = 0; done < bytes; ) {
    const count = Math.min(buffer.length, bytes - done);
    const step = readSync(descriptor, buffer, 0, count, offset + done);
    if (step === 0) return undefined;
    hash.update(buffer.subarray(0, step));
    done += step;
  }
  return hash.digest("hex");
}

/** Throws where the disk has not the room for what is still to be written. */
function checkSpace(outlines: readonly FileOutline[]): void {
  const { path } = outlines[0]!;
  const folder = dirname(path);
  const { bavail, bsize } = statfsSync(folder);
  let needed = 0;
  for (const { path, totalBytes } of outlines) {
    const partial = partialPath(path);
    // Holes of a file take no room yet.
    const taken = existsSync(partial) ? statSync(partial).blocks * 512 : 0;
    needed += Math.max(0, totalBytes - taken);
  }
  const free = bavail * bsize;
  if (needed <= free) return;
  const message = `${basename(path)} needs ${formatBytes(needed)} in ${folder}`;
  throw new TinferError("noSpace", `${message}, ${formatBytes(free)} are free`, {
    hint: "free some space, choose another disk or a smaller weight type",
  });
}
