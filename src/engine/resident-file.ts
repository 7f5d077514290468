// One model file in memory: mapped from the disk, and as far as it was copied in huge pages. The
// mapping always stays, so that going back costs nothing.
import { cpuReport } from "../native/cpu-report.ts";
import { lockMemory, MappedFile, MemoryRegion } from "../native/memory.ts";
import { mostOverRead } from "../plan/tables.ts";
import { rangePages } from "./machine.ts";

const largestPage = 2 ** 16;

/** Neighbouring bytes of a file. */
export interface FileStretch {
  readonly offset: number;
  readonly bytes: number;
}

const endOf = ({ offset, bytes }: FileStretch) => offset + bytes;
const sumBytes = (stretches: readonly FileStretch[]) =>
  stretches.reduce((sum, { bytes }) => sum + bytes, 0);

/** What of the stretches lies outside `cut`. */
function without(stretches: readonly FileStretch[], cut: FileStretch): FileStretch[] {
  const outside = stretches.flatMap((stretch) => {
    const after = Math.max(stretch.offset, endOf(cut));
    return [
      { offset: stretch.offset, bytes: Math.min(endOf(stretch), cut.offset) - stretch.offset },
      { offset: after, bytes: endOf(stretch) - after },
    ];
  });
  return outside.filter(({ bytes }) => bytes > 0);
}

/** Of what a mapping has resident; a copy of such a file gains nothing. */
const mostlyHuge = 0.9;

export class ResidentFile implements Disposable {
  readonly mapped: MappedFile;
  /** What may be copied: from the page of the first tensor on. */
  readonly #all: FileStretch;
  #copy: MemoryRegion | undefined;
  /** What is not copied, in order. */
  #uncopied: readonly FileStretch[];
  /** End of the copied piece that lies furthest back. */
  #copiedEnd: number;

  constructor(path: string, firstTensorOffset: number) {
    this.mapped = new MappedFile(path);
    const offset = Math.floor(firstTensorOffset / largestPage) * largestPage;
    this.#all = { offset, bytes: this.mapped.bytes - offset };
    this.#uncopied = [this.#all];
    this.#copiedEnd = offset;
  }

  /** Bytes that a full copy takes, in whole pages. */
  get copyBytes(): number {
    const { pageBytes } = cpuReport();
    return Math.ceil((this.#all.bytes + mostOverRead) / pageBytes) * pageBytes;
  }

  /** Memory that the copy takes now: pages come as they are filled. */
  get takenBytes(): number {
    return this.#copy === undefined ? 0 : this.#copy.bytes - sumBytes(this.#uncopied);
  }

  /** Where a tensor lies now; a tensor that is copied in part is still read from the mapping. */
  address(offset: number, bytes: number): number {
    const isApart = (part: FileStretch) => offset + bytes <= part.offset || offset >= endOf(part);
    if (this.#copy === undefined || !this.#uncopied.every(isApart)) {
      return this.mapped.address + offset;
    }
    return this.#copy.address + offset - this.#all.offset;
  }

  /** Whether the page cache has what is mapped on huge pages. */
  get isOnHugePages(): boolean {
    const { resident, huge } = rangePages(this.mapped.address, this.mapped.bytes);
    return huge > mostlyHuge * resident;
  }

  /** What is still to be copied where `leaveOut`, whole tensors, stays in the mapping. */
  uncopied(leaveOut: readonly FileStretch[]): readonly FileStretch[] {
    return leaveOut.reduce(without, this.#uncopied);
  }

  /** Copies the next of that, `bytes` at most; returns how many. */
  copy(bytes: number, numThreads: number, leaveOut: readonly FileStretch[]): number {
    const [next] = this.uncopied(leaveOut);
    if (next === undefined) return 0;
    this.#copy ??= new MemoryRegion(this.copyBytes, "huge", "weights");
    const piece = { offset: next.offset, bytes: Math.min(bytes, next.bytes) };
    const target = this.#copy.address + piece.offset - this.#all.offset;
    this.mapped.copyTo(target, piece.offset, piece.bytes, numThreads);
    this.#uncopied = without(this.#uncopied, piece);
    this.#copiedEnd = Math.max(this.#copiedEnd, endOf(piece));
    return piece.bytes;
  }

  /** Keeps the weights in memory where they lie now. */
  lock(): void {
    const { address, bytes } = this.#copy ?? this.mapped;
    lockMemory(address, bytes, "--mlock");
  }

  /** Drops the file's own pages up to there: what is read of them again is mapped again. */
  discardCopied(): void {
    this.mapped.discard(this.#all.offset, this.#copiedEnd - this.#all.offset);
  }

  /** From now on all tensors lie in the mapping. Returns the copy, for when nobody reads it. */
  takeCopy(): Disposable | undefined {
    const copy = this.#copy;
    this.#copy = undefined;
    this.#uncopied = [this.#all];
    this.#copiedEnd = this.#all.offset;
    return copy;
  }

  [Symbol.dispose](): void {
    this.#copy?.[Symbol.dispose]();
    this.mapped[Symbol.dispose]();
  }
}
