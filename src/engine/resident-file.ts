// One model file in memory: mapped from the disk, and from the front on, as far as it was copied,
// in huge pages, with or without some stretches. The mapping always stays, so that going back costs
// nothing.
import { cpuReport } from "../native/cpu-report.ts";
import { lockMemory, MappedFile, MemoryRegion } from "../native/memory.ts";
import { rangePages } from "./machine.ts";

/** Kernels may load this much past a weight's end (canonical bounds of kernels/). */
const mostOverRead = 64;
const largestPage = 2 ** 16;

/** Bytes of a file. */
export interface FileStretch {
  readonly offset: number;
  readonly bytes: number;
}

const endOf = ({ offset, bytes }: FileStretch) => offset + bytes;

export class ResidentFile implements Disposable {
  readonly mapped: MappedFile;
  /** Where copying starts: the page of the first tensor. */
  readonly #start: number;
  #copy: MemoryRegion | undefined;
  #copiedEnd: number;
  /** What the copy leaves out before its end, in order. */
  #leftOut: readonly FileStretch[] = [];

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
    const leftOut = this.#leftOut.reduce((sum, { bytes }) => sum + bytes, 0);
    return this.#copy === undefined ? 0 : this.#copy.bytes - leftOut;
  }

  /** Where a tensor lies now; a tensor that is copied in part is still read from the mapping. */
  address(offset: number, bytes: number): number {
    const isCopied = this.#copy !== undefined && offset + bytes <= this.#copiedEnd;
    const isLeftOut = this.#leftOut.some((part) => offset >= part.offset && offset < endOf(part));
    if (!isCopied || isLeftOut) return this.mapped.address + offset;
    return this.#copy!.address + offset - this.#start;
  }

  /** Whether what is mapped lies on huge pages of the page cache, so that a copy gains nothing. */
  get isOnHugePages(): boolean {
    const { pageBytes } = cpuReport();
    const wholeBytes = Math.ceil(this.mapped.bytes / pageBytes) * pageBytes;
    const { resident, huge } = rangePages(this.mapped.address, wholeBytes);
    return huge > 0.9 * resident;
  }

  /**
   * Copies the next `bytes` at most, up to the next of `leaveOut`, whole tensors in order that stay
   * in the mapping; returns how many bytes that dealt with.
   */
  copy(bytes: number, numThreads: number, leaveOut: readonly FileStretch[]): number {
    this.#copy ??= new MemoryRegion(this.copyBytes, "huge", "weights");
    const begin = this.#copiedEnd;
    const next = leaveOut.find((part) => endOf(part) > begin);
    if (next !== undefined && next.offset <= begin) {
      this.#leftOut = [...this.#leftOut, next];
      this.#copiedEnd = endOf(next);
    } else {
      const end = Math.min(begin + bytes, next?.offset ?? this.mapped.bytes, this.mapped.bytes);
      const target = this.#copy.address + begin - this.#start;
      this.mapped.copyTo(target, begin, end - begin, numThreads);
      this.#copiedEnd = end;
    }
    return this.#copiedEnd - begin;
  }

  /** Has what was left out be copied too, and what follows it again. */
  takeIn(): void {
    const [first] = this.#leftOut;
    if (first !== undefined) this.#copiedEnd = first.offset;
    this.#leftOut = [];
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
    this.#leftOut = [];
    return copy;
  }

  [Symbol.dispose](): void {
    this.#copy?.[Symbol.dispose]();
    this.mapped[Symbol.dispose]();
  }
}
