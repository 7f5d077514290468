// A bounded forward reader over the header of a GGUF file: it loads the file in growing windows
// and checks every read against the file's end. It knows numbers and strings, not metadata.
import { type ErrorCode, TinferError } from "../core/errors.ts";
import { ggufLimits } from "./gguf-limits.ts";

/** Bytes that can be read anywhere: an open file, or memory in tests. */
export interface ByteSource {
  /** How messages call it, usually the path. */
  readonly name: string;
  readonly byteLength: number;
  /** Fills `target` from `offset` on; returns the bytes read, fewer only at the end. */
  read(target: Uint8Array, offset: number): number;
}

export const downloadAgain =
  "the file is damaged or was written by a faulty converter: download or convert it again";

/** One read; the next ones double. */
const firstWindowBytes = 2 ** 19;

/**
 * Room for the usual header, reserved at once: pages that are never read cost no memory, while
 * moving to a larger buffer would touch every page twice.
 */
const firstCapacityBytes = 32 * 2 ** 20;

export class GgufCursor {
  readonly source: ByteSource;
  position = 0;
  /** From the file's start; the first `numLoaded` are read. Replaced when it is outgrown. */
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView;
  numLoaded = 0;
  /** Bytes of a count or length: 8, but 4 in version 1. */
  countBytes: 4 | 8 = 8;

  constructor(source: ByteSource) {
    this.source = source;
    this.bytes = new Uint8Array(Math.min(source.byteLength, firstCapacityBytes));
    this.view = new DataView(this.bytes.buffer);
  }

  get remaining(): number {
    return this.source.byteLength - this.position;
  }

  /** The error for a wrong value of `field`, found at `offset` (default: where reading is now). */
  error(field: string, problem: string, options: ErrorPlace = {}): TinferError {
    const offset = options.offset ?? this.position;
    return new TinferError(
      options.code ?? "invalidFile",
      `${this.source.name}: byte ${offset}: ${field}: ${problem}`,
      { hint: options.hint ?? downloadAgain },
    );
  }

  /** Makes `numBytes` from the position on readable in `bytes` and `view`. */
  need(numBytes: number, field: string): void {
    const end = this.position + numBytes;
    if (end <= this.numLoaded) return;
    if (end > this.source.byteLength) {
      throw this.error(
        field,
        `the file ends inside its header, at byte ${this.source.byteLength}; ` +
          `at least ${end - this.source.byteLength} bytes are missing`,
        { hint: "the download or copy is incomplete: download it again" },
      );
    }
    if (end > ggufLimits.headerBytes) {
      throw this.error(field, `the header passes the limit of ${ggufLimits.headerBytes} bytes`);
    }
    this.grow(end);
  }

  /** Loads on to at least `end`, and about twice of what is loaded. */
  private grow(end: number): void {
    const wanted = Math.max(end, firstWindowBytes, this.numLoaded * 2);
    const next = Math.min(wanted, this.source.byteLength, ggufLimits.headerBytes);
    if (next > this.bytes.length) {
      const outgrown = this.bytes;
      this.bytes = new Uint8Array(next);
      this.bytes.set(outgrown.subarray(0, this.numLoaded));
      this.view = new DataView(this.bytes.buffer);
    }
    const target = this.bytes.subarray(this.numLoaded, next);
    if (this.source.read(target, this.numLoaded) < target.length) {
      throw this.error("header", "the file became shorter while it was read", {
        code: "unreadable",
        hint: "another program is writing it: wait until it is complete",
      });
    }
    this.numLoaded = next;
  }

  /** Reads `numBytes` as a view of the loaded header. */
  take(numBytes: number, field: string): Uint8Array<ArrayBuffer> {
    this.need(numBytes, field);
    const start = this.position;
    this.position += numBytes;
    return this.bytes.subarray(start, this.position);
  }

  u32(field: string): number {
    this.need(4, field);
    const value = this.view.getUint32(this.position, true);
    this.position += 4;
    return value;
  }

  u64(field: string): bigint {
    this.need(8, field);
    const value = this.view.getBigUint64(this.position, true);
    this.position += 8;
    return value;
  }

  /** A count, length or dimension of at most `limit`. */
  count(field: string, limit: number): number {
    const offset = this.position;
    const value = this.countBytes === 4 ? this.u32(field) : this.u64(field);
    if (value > limit) {
      throw this.error(field, `${value} is more than the limit of ${limit}`, { offset });
    }
    return Number(value);
  }

  /** The bytes of a string (length, then bytes) of at most `limit` bytes. */
  stringBytes(field: string, limit: number): Uint8Array<ArrayBuffer> {
    const numBytes = this.count(`length of ${field}`, limit);
    return this.take(numBytes, field);
  }
}

interface ErrorPlace {
  readonly offset?: number;
  readonly code?: ErrorCode;
  readonly hint?: string;
}
