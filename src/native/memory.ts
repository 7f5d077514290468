// Owners of native memory: mapped model files and anonymous regions. Each releases once, through
// `[Symbol.dispose]`; addresses are numbers (48 bits), never turned into JavaScript buffers here
// except for short views.
import { type Pointer, ptr, toArrayBuffer } from "bun:ffi";
import { check, native } from "./library.ts";

/** An address and a byte count as the library's `Range` and `MappedFile` structs. */
function makeRange(address: number, bytes: number): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array([BigInt(address), BigInt(bytes)]);
}

/** A file mapped read-only, with a guard page behind its end. */
export class MappedFile {
  readonly address: number;
  readonly bytes: number;
  readonly #range: BigUint64Array<ArrayBuffer>;

  constructor(path: string) {
    this.#range = makeRange(0, 0);
    const cPath = Buffer.from(`${path}\0`);
    check(native().tinfer_map_file(ptr(cPath), ptr(this.#range)), `cannot map ${path}`);
    this.address = Number(this.#range[0]);
    this.bytes = Number(this.#range[1]);
  }

  /** Reads a range of the file into memory ahead of its use. */
  populate(offset: number, bytes: number): void {
    check(native().tinfer_populate(ptr(makeRange(this.address + offset, bytes))), "populate");
  }

  [Symbol.dispose](): void {
    check(native().tinfer_unmap_file(ptr(this.#range)), "unmap");
  }
}

/** Zeroed anonymous memory, 64-byte aligned. */
export class MemoryRegion {
  readonly address: number;
  readonly bytes: number;
  readonly #range: BigUint64Array<ArrayBuffer>;

  constructor(bytes: number, what: string) {
    this.#range = makeRange(0, bytes);
    const hint = "use a smaller context (--ctx), fewer sequences (--parallel) or a smaller model";
    check(native().tinfer_allocate(ptr(this.#range)), what, hint);
    this.address = Number(this.#range[0]);
    this.bytes = bytes;
  }

  /** A view of part of the region; valid until the region is disposed. */
  view(offset: number, bytes: number): ArrayBuffer {
    return viewMemory(this.address + offset, bytes);
  }

  [Symbol.dispose](): void {
    check(native().tinfer_release(ptr(this.#range)), "release");
  }
}

/** A view of native memory that its owner keeps alive. */
export function viewMemory(address: number, bytes: number): ArrayBuffer {
  return toArrayBuffer(address as Pointer, 0, bytes);
}
