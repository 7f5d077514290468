// Owners of native memory: mapped model files and anonymous regions. Each releases once, through
// `[Symbol.dispose]`; addresses are numbers (48 bits), never turned into JavaScript buffers here
// except for short views.
import { type Pointer, ptr, toArrayBuffer } from "bun:ffi";
import { check, native } from "./library.ts";

/** An address and a byte count as the library's `Range` struct. */
function makeRange(address: number, bytes: number): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array([BigInt(address), BigInt(bytes)]);
}

/** Keeps a range in memory; throws where the process may not lock as much. */
export function lockMemory(address: number, bytes: number, what: string): void {
  const hint = "raise the limit (ulimit -l unlimited), or leave --mlock out";
  check(native().tinfer_lock(ptr(makeRange(address, bytes))), what, hint);
}

/**
 * Spreads memory over memory nodes: what this thread, and threads that it starts from now on, are
 * the first to use.
 */
export function interleaveMemory(nodes: readonly number[]): void {
  let mask = 0n;
  for (const node of nodes) mask |= 1n << BigInt(node);
  const hint = "run it under `numactl --interleave=all` instead, or leave --numa out";
  check(native().tinfer_interleave_memory(ptr(new BigUint64Array([mask]))), "--numa", hint);
}

/** A file mapped read-only, with a guard page behind its end. */
export class MappedFile implements Disposable {
  readonly path: string;
  readonly address: number;
  readonly bytes: number;
  /** `MappedFile` of kernels/memory.zig. */
  readonly #file = new BigUint64Array(3);

  constructor(path: string) {
    this.path = path;
    const cPath = Buffer.from(`${path}\0`);
    check(native().tinfer_map_file(ptr(cPath), ptr(this.#file)), `cannot map ${path}`);
    this.address = Number(this.#file[0]);
    this.bytes = Number(this.#file[1]);
  }

  /** Maps the pages of a range ahead of their use. */
  populate(offset: number, bytes: number): void {
    check(native().tinfer_populate(ptr(makeRange(this.address + offset, bytes))), "populate");
  }

  /** Has a range read into the page cache, none of which becomes this process's memory. */
  readAhead(offset: number, bytes: number): void {
    check(native().tinfer_read_ahead(ptr(makeRange(this.address + offset, bytes))), "read ahead");
  }

  /** Takes the range's pages out of this process; the next access maps them again. */
  discard(offset: number, bytes: number): void {
    check(native().tinfer_discard(ptr(makeRange(this.address + offset, bytes))), "discard");
  }

  /** Copies a range of the file to native memory, with several threads. */
  copyTo(address: number, offset: number, bytes: number, numThreads: number): void {
    const args = new BigUint64Array(5);
    args.set([ptr(this.#file), offset, bytes, address, numThreads].map(BigInt));
    check(native().tinfer_read_file(ptr(args)), `cannot read ${this.path}`);
  }

  [Symbol.dispose](): void {
    check(native().tinfer_unmap_file(ptr(this.#file)), "unmap");
  }
}

/** How a region's memory comes: by 4 KiB as it is used, or in huge pages of 2 MiB. */
const pageKinds = ["small", "huge"] as const;
export type PageKind = (typeof pageKinds)[number];

/** Zeroed anonymous memory, page-aligned. */
export class MemoryRegion implements Disposable {
  readonly address: number;
  /** What was taken: the bytes asked for in whole pages. */
  readonly bytes: number;
  /** `AllocateArgs` of kernels/abi.zig. */
  readonly #args: BigUint64Array<ArrayBuffer>;

  constructor(bytes: number, pages: PageKind, what: string) {
    this.#args = new BigUint64Array([0n, BigInt(bytes), BigInt(pageKinds.indexOf(pages))]);
    const hint = "use a smaller context (--ctx), fewer sequences (--parallel) or a smaller model";
    check(native().tinfer_allocate(ptr(this.#args)), what, hint);
    this.address = Number(this.#args[0]);
    this.bytes = Number(this.#args[1]);
  }

  [Symbol.dispose](): void {
    check(native().tinfer_release(ptr(this.#args)), "release");
  }
}

/** Allocations of the library so far. */
export function allocationCount(): number {
  const count = new BigUint64Array(1);
  check(native().tinfer_allocation_count(ptr(count)), "allocation count");
  return Number(count[0]);
}

/** A view of native memory that its owner keeps alive. */
export function viewMemory(address: number, bytes: number): ArrayBuffer {
  return toArrayBuffer(address as Pointer, 0, bytes);
}
