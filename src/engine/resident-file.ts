// One model file in memory: mapped from the disk, and as far as it was copied in huge pages, where
// some tensors are interleaved. The mapping always stays, so that going back costs nothing.
import { cpuReport } from "../native/cpu-report.ts";
import { lockMemory, MappedFile, MemoryRegion } from "../native/memory.ts";
import { mostOverRead } from "../plan/tables.ts";
import { interleaveFilled, type PanelTensor, type Stretch } from "./interleaving.ts";
import { rangePages } from "./machine.ts";

const largestPage = 2 ** 16;

/** A step takes 4 ms from the page cache and about a quarter of a second from a slow disk. */
const populateStepBytes = 64 * 2 ** 20;

const endOf = ({ offset, bytes }: Stretch) => offset + bytes;
const sumBytes = (stretches: readonly Stretch[]) =>
  stretches.reduce((sum, { bytes }) => sum + bytes, 0);

/** What of the stretches lies outside `cut`. */
function without(stretches: readonly Stretch[], cut: Stretch): Stretch[] {
  const outside = stretches.flatMap((stretch) => {
    const after = Math.max(stretch.offset, endOf(cut));
    return [
      { offset: stretch.offset, bytes: Math.min(endOf(stretch), cut.offset) - stretch.offset },
      { offset: after, bytes: endOf(stretch) - after },
    ];
  });
  return outside.filter(({ bytes }) => bytes > 0);
}

interface FilePiece extends Stretch {
  readonly isTable: boolean;
}

/** A file's bytes in steps, none of which is in part a table's. */
function* piecesOf(fileBytes: number, tables: readonly Stretch[]): Generator<FilePiece> {
  let offset = 0;
  for (const table of [...tables, { offset: fileBytes, bytes: 0 }]) {
    while (offset < endOf(table)) {
      const isTable = offset >= table.offset;
      const end = Math.min(offset + populateStepBytes, isTable ? endOf(table) : table.offset);
      yield { offset, bytes: end - offset, isTable };
      offset = end;
    }
  }
}

/** Of what a mapping has resident; other pages in a copy of such a file gain nothing. */
const mostlyHuge = 0.9;

export class ResidentFile implements Disposable {
  readonly mapped: MappedFile;
  /** What may be copied: from the page of the first tensor on. */
  readonly #all: Stretch;
  #copy: MemoryRegion | undefined;
  /** What is not copied, in order. */
  #uncopied: readonly Stretch[];
  /** End of the copied piece that lies furthest back. */
  #copiedEnd: number;
  /** What left a piece interleaved in part: this copy never goes on. */
  #failure: unknown;

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

  /** Whether a tensor is, as a whole; of one that is copied in part the mapping is read. */
  isCopied(tensor: Stretch): boolean {
    const isApart = (part: Stretch) => endOf(tensor) <= part.offset || tensor.offset >= endOf(part);
    return this.#copy !== undefined && this.#uncopied.every(isApart);
  }

  /** Where a tensor lies now. */
  address(tensor: Stretch): number {
    const start = this.isCopied(tensor) ? this.#copyStart : this.mapped.address;
    return start + tensor.offset;
  }

  /** Where the copy would have the file's first byte. */
  get #copyStart(): number {
    return this.#copy!.address - this.#all.offset;
  }

  /** Whether the page cache has what is mapped on huge pages. */
  get isOnHugePages(): boolean {
    const { resident, huge } = rangePages(this.mapped.address, this.mapped.bytes);
    return huge > mostlyHuge * resident;
  }

  /** Maps all pages by pieces, but reads `tables` only ahead; yields how many bytes a piece has. */
  *populate(tables: readonly Stretch[]): Generator<number> {
    for (const { offset, bytes, isTable } of piecesOf(this.mapped.bytes, tables)) {
      if (isTable) this.mapped.readAhead(offset, bytes);
      else this.mapped.populate(offset, bytes);
      yield bytes;
    }
  }

  /** What is still to be copied where `leaveOut`, whole tensors, stays in the mapping. */
  uncopied(leaveOut: readonly Stretch[]): readonly Stretch[] {
    return leaveOut.reduce(without, this.#uncopied);
  }

  /** Copies the next of that, `bytes` at most; returns how many. In the copy `panels` interleave. */
  copy(
    bytes: number,
    numThreads: number,
    leaveOut: readonly Stretch[],
    panels: readonly PanelTensor[],
  ): number {
    const [next] = this.uncopied(leaveOut);
    if (next === undefined) return 0;
    if (this.#failure !== undefined) throw this.#failure;
    this.#copy ??= new MemoryRegion(this.copyBytes, "huge", "weights");
    const piece = { offset: next.offset, bytes: Math.min(bytes, next.bytes) };
    const start = this.#copyStart;
    this.mapped.copyTo(start + piece.offset, piece.offset, piece.bytes, numThreads);
    try {
      for (const tensor of panels) interleaveFilled(start, tensor, piece);
    } catch (error) {
      this.#failure = error;
      throw error;
    }
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
    this.#failure = undefined;
    return copy;
  }

  [Symbol.dispose](): void {
    this.#copy?.[Symbol.dispose]();
    this.mapped[Symbol.dispose]();
  }
}
