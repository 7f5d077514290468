// A file that is being downloaded: its bytes, their running SHA-256 and a journal that says what
// they are a part of. The journal counts no bytes: the file's own length says how far it came,
// which stays true through a kill at any moment.
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import { TinferError } from "../core/errors.ts";

export interface Journal {
  url: string;
  /** A strong ETag or a Last-Modified date: what If-Range may name. */
  validator: string | undefined;
  totalBytes: number | undefined;
  /** Set when a file without a published hash is complete: asks later whether it changed. */
  completedSha256: string | undefined;
}

/** Where bytes go; tests put a full disk here. */
export interface Disk {
  freeBytes(folder: string): number;
  write(file: FileHandle, bytes: Uint8Array, position: number): Promise<void>;
}

export const realDisk: Disk = {
  freeBytes(folder) {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  },
  async write(file, bytes, position) {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
      done += bytesWritten;
    }
  },
};

const rehashBytes = 4 << 20;

export class PartialFile implements AsyncDisposable {
  readonly path: string;
  journal: Journal | undefined;
  /** Bytes in the file; all of them are in the hash. */
  numBytes = 0;
  private readonly disk: Disk;
  private readonly file: FileHandle;
  private hasher = new Bun.CryptoHasher("sha256");
  private open = true;

  private constructor(path: string, file: FileHandle, disk: Disk) {
    this.path = path;
    this.file = file;
    this.disk = disk;
    this.journal = readJournal(path);
  }

  static async open(path: string, disk: Disk): Promise<PartialFile> {
    mkdirSync(dirname(path), { recursive: true });
    const file = await open(path, existsSync(path) ? "r+" : "w+");
    return new PartialFile(path, file, disk);
  }

  /** Hashes what an earlier pull left; without a journal those bytes belong to nothing. */
  async resume(onProgress: (bytes: number) => void, signal: AbortSignal): Promise<void> {
    const { size } = await this.file.stat();
    if (this.journal === undefined || this.journal.completedSha256 !== undefined) {
      return await this.restart();
    }
    const buffer = new Uint8Array(Math.min(rehashBytes, size));
    while (this.numBytes < size) {
      signal.throwIfAborted();
      const { bytesRead } = await this.file.read(buffer, 0, buffer.length, this.numBytes);
      if (bytesRead === 0) break;
      this.hasher.update(buffer.subarray(0, bytesRead));
      this.numBytes += bytesRead;
      onProgress(this.numBytes);
    }
  }

  writeJournal(journal: Journal): void {
    this.journal = journal;
    const draft = `${journalPath(this.path)}.new`;
    writeFileSync(draft, JSON.stringify(journal));
    renameSync(draft, journalPath(this.path));
  }

  async append(bytes: Uint8Array): Promise<void> {
    try {
      await this.disk.write(this.file, bytes, this.numBytes);
    } catch (error) {
      // A part may be on the disk already: the next resume must find only what is counted.
      await this.file.truncate(this.numBytes);
      throw this.explainWrite(error, bytes.length);
    }
    this.hasher.update(bytes);
    this.numBytes += bytes.length;
  }

  async restart(): Promise<void> {
    await this.file.truncate(0);
    this.hasher = new Bun.CryptoHasher("sha256");
    this.numBytes = 0;
  }

  async firstBytes(count: number): Promise<Uint8Array> {
    const buffer = new Uint8Array(count);
    const { bytesRead } = await this.file.read(buffer, 0, count, 0);
    return buffer.subarray(0, bytesRead);
  }

  /** The hash of everything received; the hash goes on. */
  sha256(): string {
    return this.hasher.copy().digest("hex");
  }

  requireSpace(totalBytes: number): void {
    const neededBytes = totalBytes - this.numBytes;
    const freeBytes = this.disk.freeBytes(dirname(this.path));
    if (neededBytes > freeBytes) throw noSpace(dirname(this.path), neededBytes, freeBytes);
  }

  /** Durable under its final name, in one step. Ends this object. */
  async moveTo(path: string): Promise<void> {
    mkdirSync(dirname(path), { recursive: true });
    await this.file.sync();
    await this.close();
    renameSync(this.path, path);
    await syncFolder(dirname(path));
    if (this.journal?.completedSha256 === undefined)
      rmSync(journalPath(this.path), { force: true });
  }

  /** Ends this object and leaves nothing. */
  async discard(): Promise<void> {
    await this.close();
    rmSync(this.path, { force: true });
    rmSync(journalPath(this.path), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async close(): Promise<void> {
    if (!this.open) return;
    this.open = false;
    // Asked of the file: after an early failure `numBytes` has not caught up with it.
    const { size } = await this.file.stat();
    await this.file.close();
    if (size === 0) rmSync(this.path, { force: true });
  }

  private explainWrite(error: unknown, numBytes: number): unknown {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ENOSPC" && code !== "EDQUOT") return error;
    const total = this.journal?.totalBytes;
    const neededBytes = total === undefined ? numBytes : total - this.numBytes;
    const folder = dirname(this.path);
    return noSpace(folder, neededBytes, this.disk.freeBytes(folder), error);
  }
}

export function noSpace(
  folder: string,
  neededBytes: number,
  freeBytes: number,
  cause?: unknown,
): TinferError {
  const sizes = `${neededBytes} bytes needed, ${freeBytes} free`;
  return new TinferError("noSpace", `not enough space in ${folder}: ${sizes}`, {
    hint: "Free some space (`tinfer rm`) or set TINFER_HOME to another disk, then pull again.",
    cause,
  });
}

function journalPath(path: string): string {
  return `${path}.json`;
}

function readJournal(path: string): Journal | undefined {
  try {
    const journal: Partial<Journal> = JSON.parse(readFileSync(journalPath(path), "utf8"));
    if (typeof journal.url !== "string") return undefined;
    return {
      url: journal.url,
      validator: journal.validator,
      totalBytes: journal.totalBytes,
      completedSha256: journal.completedSha256,
    };
  } catch {
    // Absent, or damaged by a power cut: then the bytes beside it prove nothing either.
    return undefined;
  }
}

/** The rename itself must survive a power cut. Windows cannot open folders and needs no sync. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
