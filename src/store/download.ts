// The transfer of one file into the blobs: lock, resume, retries, hash, atomic placement. What the
// file is called and which files make a model is decided in `pull.ts`.
import { TinferError } from "../core/errors.ts";
import { describeOwner, type FileLock, isLock, tryLock } from "../core/lock.ts";
import { checkGguf } from "../weights/gguf.ts";
import { blobPath, partialPath, presentBlob, type ReceivedFile, type RemoteFile } from "./blobs.ts";
import { type Disk, PartialFile } from "./partial-file.ts";
import {
  type Access,
  explainFailure,
  gaveUp,
  openUrl,
  pause,
  type RetryPolicy,
  refuseStatus,
  retryDelayMs,
  shown,
  TransferInterrupted,
} from "./request.ts";

const damagedSource =
  "The download was deleted. Pull again; if it stays wrong, the source is damaged.";

export interface PullProgress {
  fileName: string;
  receivedBytes: number;
  totalBytes: number | undefined;
  phase: "resolving" | "downloading" | "verifying" | "done" | "restarted";
  note?: string;
}

export interface TransferOptions {
  access: Access;
  retry: RetryPolicy;
  disk: Disk;
  signal: AbortSignal;
  onProgress: (progress: PullProgress) => void;
}

/** Ends with the blob in place. `folder` is the store's. */
export async function downloadFile(
  folder: string,
  file: RemoteFile,
  options: TransferOptions,
): Promise<ReceivedFile> {
  const path = partialPath(folder, file);
  using _lock = await waitForLock(`${path}.lock`, file, options);
  const present =
    file.sha256 === undefined ? undefined : presentBlob(folder, file.sha256, file.bytes);
  if (present !== undefined) {
    const bytes = present.bytes;
    options.onProgress({
      fileName: file.fileName,
      receivedBytes: bytes,
      totalBytes: bytes,
      phase: "done",
      note: "already in the store",
    });
    return present;
  }
  await using partial = await PartialFile.open(path, options.disk);
  return await new Transfer(folder, file, partial, options).run();
}

async function waitForLock(
  path: string,
  file: RemoteFile,
  options: TransferOptions,
): Promise<FileLock> {
  for (let told = false; ; told = true) {
    options.signal.throwIfAborted();
    const result = tryLock(path);
    if (isLock(result)) return result;
    if (!told) {
      options.onProgress({
        fileName: file.fileName,
        receivedBytes: 0,
        totalBytes: file.bytes,
        phase: "resolving",
        note: `waiting for ${describeOwner(result)}, which is downloading this file`,
      });
    }
    await pause(200, options.signal);
  }
}

const progressMs = 100;

class Transfer {
  private readonly folder: string;
  private readonly file: RemoteFile;
  private readonly partial: PartialFile;
  private readonly options: TransferOptions;
  private expectedSha256: string | undefined;
  private lastProgressMs = 0;
  private isGguf: boolean | undefined;

  constructor(folder: string, file: RemoteFile, partial: PartialFile, options: TransferOptions) {
    this.folder = folder;
    this.file = file;
    this.partial = partial;
    this.options = options;
    this.expectedSha256 = file.sha256;
  }

  async run(): Promise<ReceivedFile> {
    const { partial, options } = this;
    const unchanged = this.completedBefore();
    await partial.resume(() => this.tell("verifying"), options.signal);
    if (partial.numBytes > 0) this.tell("downloading", `resuming at byte ${partial.numBytes}`);
    let bestBytes = partial.numBytes;
    for (let tries = 0; !this.isComplete(); ) {
      try {
        const end = await this.attempt(tries === 0 ? unchanged : undefined);
        if (end === "unchanged" && unchanged !== undefined) return this.finishUnchanged(unchanged);
        if (end === "complete") break;
      } catch (failure) {
        options.signal.throwIfAborted();
        if (!(failure instanceof TransferInterrupted)) throw failure;
        // Only new bytes count as progress: a server without ranges could restart us forever.
        tries = partial.numBytes > bestBytes ? 0 : tries + 1;
        bestBytes = Math.max(bestBytes, partial.numBytes);
        if (tries >= options.retry.maxTries) throw gaveUp(failure, tries);
        const delayMs = retryDelayMs(options.retry, tries, failure.retryAfterMs);
        this.tell("downloading", `${failure.message}; trying again in ${delayMs / 1000} s`);
        await pause(delayMs, options.signal);
      }
    }
    return await this.finish();
  }

  /** The blob of an earlier pull of this address, when the server can be asked for changes. */
  private completedBefore(): ReceivedFile | undefined {
    const journal = this.partial.journal;
    if (journal?.completedSha256 === undefined || journal.validator === undefined) return undefined;
    return presentBlob(this.folder, journal.completedSha256, this.file.bytes);
  }

  private isComplete(): boolean {
    const { numBytes, journal } = this.partial;
    return numBytes > 0 && numBytes === journal?.totalBytes;
  }

  private async attempt(unchanged: ReceivedFile | undefined): Promise<"complete" | "unchanged"> {
    const { options, file } = this;
    const stall = new AbortController();
    const { stallMs } = options.retry;
    const stalled = () => {
      stall.abort(new TransferInterrupted(`${shown(file.url)}: nothing came for ${stallMs} ms`));
    };
    let timer = setTimeout(stalled, stallMs);
    try {
      const signal = AbortSignal.any([options.signal, stall.signal]);
      const headers = this.conditions(unchanged);
      const opened = await openUrl(file.url, headers, options.access, signal);
      this.expectedSha256 ??= opened.linkedSha256;
      if (opened.response.status === 304 && unchanged !== undefined) return "unchanged";
      await this.begin(opened.response);
      const reader = opened.response.body?.getReader();
      for (;;) {
        const part = await readPart(reader, file.url);
        if (part === undefined) break;
        clearTimeout(timer);
        await this.accept(part);
        timer = setTimeout(stalled, stallMs);
      }
      return this.endOfBody();
    } finally {
      clearTimeout(timer);
      // Ends the connection when the body was not read to its end; harmless otherwise.
      stall.abort();
    }
  }

  private conditions(unchanged: ReceivedFile | undefined): Record<string, string> {
    const { numBytes, journal } = this.partial;
    const validator = journal?.validator;
    if (numBytes > 0) {
      const range = { Range: `bytes=${numBytes}-` };
      return validator === undefined || !this.isSameAddress()
        ? range
        : { ...range, "If-Range": validator };
    }
    if (unchanged === undefined || validator === undefined) return {};
    return validator.startsWith('"')
      ? { "If-None-Match": validator }
      : { "If-Modified-Since": validator };
  }

  /** ETags are one server's: for another address of the same hash they say nothing. */
  private isSameAddress(): boolean {
    return this.partial.journal?.url === this.file.url;
  }

  /** Takes the answer's head: what its body will be, and where it belongs. */
  private async begin(response: Response): Promise<void> {
    const { partial, file } = this;
    if (response.status === 416) return await this.rangeRefused(response);
    if (response.status !== 200 && response.status !== 206) await refuseStatus(response, file.url);
    const validator = validatorOf(response.headers);
    const partOf = response.status === 206 ? contentRange(response.headers) : undefined;
    if (response.status === 206 && partOf === undefined) {
      throw new TinferError("network", `${shown(file.url)}: a part came without Content-Range`);
    }
    const totalBytes = partOf === undefined ? contentLength(response.headers) : partOf.totalBytes;
    const known = partial.numBytes > 0 ? partial.journal : undefined;
    const changed =
      differ(known?.totalBytes, totalBytes) ||
      (this.isSameAddress() && differ(known?.validator, validator));
    if (known !== undefined && changed) {
      await this.restart("the file changed on the server since its first part");
    } else if (known !== undefined && partOf?.start !== partial.numBytes) {
      await this.restart("the server does not resume");
    }
    if (partOf !== undefined && partOf.start !== partial.numBytes) {
      // The body belongs elsewhere: ask again, now from the beginning.
      throw new TransferInterrupted(`${shown(file.url)}: starting again`);
    }
    const announced = totalBytes ?? (changed ? undefined : known?.totalBytes) ?? file.bytes;
    if (announced === undefined && !isChunked(response.headers)) {
      throw new TinferError(
        "network",
        `${shown(file.url)}: the server does not say how long it is`,
      );
    }
    if (differ(file.bytes, announced)) {
      await this.refuse(`${announced} bytes are offered, ${file.bytes} are published`);
    }
    const { url } = file;
    partial.writeJournal({ url, validator, totalBytes: announced, completedSha256: undefined });
    if (announced !== undefined) partial.requireSpace(announced);
    this.tell("downloading");
  }

  /** Nothing lies beyond what we have: then the file is complete, or not the same any more. */
  private async rangeRefused(response: Response): Promise<never> {
    await response.body?.cancel();
    await this.restart("the server refuses to go on from here");
    throw new TransferInterrupted(`${shown(this.file.url)}: starting again`);
  }

  private async accept(part: Uint8Array): Promise<void> {
    const { partial } = this;
    const totalBytes = partial.journal?.totalBytes;
    if (totalBytes !== undefined && partial.numBytes + part.length > totalBytes) {
      await this.refuse(`more than the announced ${totalBytes} bytes arrived`);
    }
    await partial.append(part);
    // Early, so that an error page or another format does not fill the disk first.
    if (this.isGguf === undefined && partial.numBytes >= 4) await this.checkMagic();
    if (performance.now() - this.lastProgressMs >= progressMs) this.tell("downloading");
  }

  private async endOfBody(): Promise<"complete"> {
    const { numBytes, journal } = this.partial;
    const totalBytes = journal?.totalBytes;
    if (totalBytes !== undefined && numBytes < totalBytes) {
      throw new TransferInterrupted(`${shown(this.file.url)}: the connection was cut`);
    }
    return "complete";
  }

  private async finish(): Promise<ReceivedFile> {
    const { partial, file, expectedSha256 } = this;
    await this.checkMagic();
    if (expectedSha256 === undefined) await this.checkContent();
    const received = { sha256: partial.sha256(), bytes: partial.numBytes };
    if (expectedSha256 !== undefined && expectedSha256 !== received.sha256) {
      await this.refuse(`SHA-256 is ${received.sha256}, published is ${expectedSha256}`);
    }
    this.tell("verifying");
    if (file.sha256 === undefined && partial.journal !== undefined) {
      partial.writeJournal({ ...partial.journal, completedSha256: received.sha256 });
    }
    await partial.moveTo(blobPath(this.folder, received.sha256));
    this.tell("done", this.isGguf === false ? "as published, but not a GGUF file" : undefined);
    return received;
  }

  private finishUnchanged(received: ReceivedFile): ReceivedFile {
    this.options.onProgress({
      fileName: this.file.fileName,
      receivedBytes: received.bytes,
      totalBytes: received.bytes,
      phase: "done",
      note: "unchanged on the server",
    });
    return received;
  }

  private async restart(why: string): Promise<void> {
    await this.partial.restart();
    this.isGguf = undefined;
    this.tell("restarted", why);
  }

  /** A file with a published hash may be anything; without one it must at least be a GGUF file. */
  private async checkMagic(): Promise<void> {
    const head = new TextDecoder("latin1").decode(await this.partial.firstBytes(4));
    this.isGguf = head === "GGUF";
    if (this.isGguf || this.expectedSha256 !== undefined) return;
    await this.partial.discard();
    const where = shown(this.file.url);
    const found = JSON.stringify(head);
    throw new TinferError("invalidFile", `${where} is not a GGUF file: it begins with ${found}`, {
      hint: "Give the address of the file itself; a page about it will not do.",
    });
  }

  /** Its length may be that of a file that was cut before it came to the server. */
  private async checkContent(): Promise<void> {
    try {
      checkGguf(this.partial.path, shown(this.file.url));
    } catch (cause) {
      if (!(cause instanceof TinferError)) throw cause;
      // For a newer tinfer it may be whole.
      if (cause.code === "unsupported") return;
      await this.partial.discard();
      throw new TinferError("invalidFile", cause.message, { hint: damagedSource, cause });
    }
  }

  private async refuse(why: string): Promise<never> {
    await this.partial.discard();
    throw new TinferError("checksum", `${this.file.fileName}: ${why}`, { hint: damagedSource });
  }

  private tell(phase: PullProgress["phase"], note?: string): void {
    const { partial, file, options } = this;
    this.lastProgressMs = performance.now();
    options.onProgress({
      fileName: file.fileName,
      receivedBytes: partial.numBytes,
      totalBytes: partial.journal?.totalBytes ?? file.bytes,
      phase,
      ...(note === undefined ? {} : { note }),
    });
  }
}

function differ<T>(a: T | undefined, b: T | undefined): boolean {
  return a !== undefined && b !== undefined && a !== b;
}

async function readPart(
  reader: { read(): Promise<{ value?: Uint8Array | undefined }> } | undefined,
  url: string,
): Promise<Uint8Array | undefined> {
  try {
    const result = await reader?.read();
    return result?.value;
  } catch (error) {
    throw explainFailure(error, new URL(url));
  }
}

/** Weak ETags ("W/…") do not promise equal bytes, so they cannot guard a resume. */
function validatorOf(headers: Headers): string | undefined {
  const etag = headers.get("etag");
  if (etag?.startsWith('"')) return etag;
  return headers.get("last-modified") ?? undefined;
}

/** A chunked body marks its own end; any other must announce its length to be known as whole. */
function isChunked(headers: Headers): boolean {
  return /\bchunked\b/i.test(headers.get("transfer-encoding") ?? "");
}

function contentLength(headers: Headers): number | undefined {
  const text = headers.get("content-length");
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function contentRange(
  headers: Headers,
): { start: number; totalBytes: number | undefined } | undefined {
  const match = /^bytes (\d{1,15})-\d{1,15}\/(\d{1,15}|\*)$/.exec(
    headers.get("content-range") ?? "",
  );
  if (match === null) return undefined;
  const totalBytes = match[2] === "*" ? undefined : Number(match[2]);
  return { start: Number(match[1]), totalBytes };
}
