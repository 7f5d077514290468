// One model file in memory: mapped from the disk, and from the front on, as far as it was copied,
// in huge pages. The mapping always stays, so that going back costs nothing.
import { cpuReport } from "../native/cpu-report.ts";
import { lockMemory, MappedFile, MemoryRegion } from "../native/memory.ts";
import { rangePages } from "./machine.ts";

/** Kernels may load this much past a weight's end (canonical bounds of kernels/). */
const mostOverRead = 64;
const largestPage = 2 ** 16;

export class ResidentFile implements Disposable {
  readonly mapped: MappedFile;
  /** Where copying starts: the page of the first tensor. */
  readonly #start: number;
  #copy: MemoryRegion | undefined;
  #copiedEnd: number;

  constructor(path: string, firstTensorOffset: number) {
    this.mapped = new MappedFile(path);
    this.#start = Math.floor(firstTensorOffset / largestPage) * largestPage;
    this.#copiedEnd = this.#start;
  }

  /** Bytes that a full copy takes, in whole pages. */
  get copyBytes(): number {
    const { pageBytes } = cpuReport();
    return Math.ceil((this.mapped.bytes - this.#start + mostOverRead) / pageBytes) * pageBytes;
  }

  /** Bytes still to be copied. */
  get uncopiedBytes(): number {
    return this.mapped.bytes - this.#copiedEnd;
  }

  get takenBytes(): number {
    return this.#copy?.bytes ?? 0;
  }

  /** Where a tensor lies now; a tensor that is copied in part is still read from the mapping. */
  address(offset: number, bytes: number): number {
    const isCopied = this.#copy !== undefined && offset + bytes <= this.#copiedEnd;
    return isCopied ? this.#copy!.address + offset - this.#start : this.mapped.address + offset;
  }

  /** Whether what is mapped lies on huge pages of the page cache, so that a copy gains nothing. */
  get isOnHugePages(): boolean {
    const { pageBytes } = cpuReport();
    const wholeBytes = Math.ceil(this.mapped.bytes / pageBytes) * pageBytes;
    const { resident, huge } = rangePages(this.mapped.address, wholeBytes);
    return huge > 0.9 * resident;
  }

  /** Copies the next `bytes` at most; returns how many. */
  copy(bytes: number, numThreads: number): number {
    this.#copy ??= new MemoryRegion(this.copyBytes, "huge", "weights");
    const count = Math.min(bytes, this.uncopiedBytes);
    const target = this.#copy.address + this.#copiedEnd - this.#start;
    this.mapped.copyTo(target, this.#copiedEnd, count, numThreads);
    this.#copiedEnd += count;
    return count;
  }

  /** Keeps the weights in memory where they lie now. */
  lock(): void {
    const { address, bytes } = this.#copy ?? this.mapped;
    lockMemory(address, bytes, "--mlock");
  }

  /** Drops the file's own pages of what is copied; nothing may need them, yet any still could. */
  discardCopied(): void {
    this.mapped.discard(this.#start, this.#copiedEnd - this.#start);
  }

  /** From now on all tensors lie in the mapping. Returns the copy, for when nobody reads it. */
  takeCopy(): Disposable | undefined {
    const copy = this.#copy;
    this.#copy = undefined;
    this.#copiedEnd = this.#start;
    return copy;
  }

  [Symbol.dispose](): void {
    this.#copy?.[Symbol.dispose]();
    this.mapped[Symbol.dispose]();
  }
}
