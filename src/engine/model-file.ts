// A model that is open: its header, its mapped files, and where each tensor lies in memory.
import type { WeightMemory } from "../backend/backend.ts";
import { assert, TinferError } from "../core/errors.ts";
import type { PlanOptions } from "../models/family.ts";
import { architectureOf, type ModelConfig, readModelConfig } from "../models/model-config.ts";
import { familyOf } from "../models/registry.ts";
import { type RopeOptions, withRopeOptions } from "../models/rope-options.ts";
import type { Adapter } from "../plan/adapters.ts";
import { type Plan, PlanBuilder, type PlanOutputs } from "../plan/builder.ts";
import type { WeightFacts } from "../plan/weight-table.ts";
import { requireNoAdapter } from "../weights/lora-file.ts";
import {
  type FileTensor,
  isDerived,
  isInFile,
  type ModelHeader,
  type ModelTensor,
  withScales,
} from "../weights/model-header.ts";
import { quantTypeInfo } from "../weights/quant-types.ts";
import { readTensorFloats, readTensorRows, sumTensorRows } from "../weights/tensor-content.ts";
import { DerivedWeights } from "./derived-weights.ts";
import { availableMemoryBytes } from "./machine.ts";
import { openForRunning } from "./open-model.ts";
import { ResidentFile } from "./resident-file.ts";

/** Throws unless the file has weights, of an architecture that tinfer knows. */
function requireRunnable(header: ModelHeader): void {
  requireNoAdapter(header);
  const { paths, metadata, tensors } = header;
  const architecture = architectureOf(metadata);
  if (tensors.size === 0) {
    throw new TinferError("unsupported", `${paths[0]} holds a vocabulary but no weights`, {
      hint: "it serves `tinfer tokenize`, `show` and `render` only",
    });
  }
  familyOf(architecture);
}

export interface ModelKind {
  readonly architecture: string;
  /** Ends in the hidden states of whole texts. */
  readonly isEncoder: boolean;
}

/** Throws for models that generate no text. */
export function requireDecoder({ architecture, isEncoder }: ModelKind): void {
  if (!isEncoder) return;
  const message = `'${architecture}' models are encoders: they make embeddings, not text`;
  throw new TinferError("unsupported", message, {
    hint:
      "use `tinfer embed MODEL TEXT`, or `tinfer serve MODEL` and POST /v1/embeddings; " +
      "`tinfer logits --hidden` writes raw hidden states",
  });
}

/** Throws unless the file holds a model that generates text. */
export function requireGenerator(header: ModelHeader): void {
  requireRunnable(header);
  const architecture = architectureOf(header.metadata);
  requireDecoder({ architecture, isEncoder: familyOf(architecture).isEncoder === true });
}

/** Filling huge pages goes at 0.5 to 3 GB/s; nobody who comes meanwhile waits for long. */
const copyStepBytes = 16 * 2 ** 20;

/** How far weights are on their way into memory. */
export interface LoadProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** Where the tensors that are used as they are begin, or undefined where there are none. */
function firstOffset({ tensors }: ModelHeader, fileIndex: number): number | undefined {
  let first: number | undefined;
  for (const tensor of withScales(tensors.values())) {
    if (!isInFile(tensor) || tensor.fileIndex !== fileIndex) continue;
    first = Math.min(first ?? tensor.offset, tensor.offset);
  }
  return first;
}

function factsOf({ shape, type, scales }: ModelTensor): WeightFacts {
  const { ggmlType: typeId } = quantTypeInfo(type);
  if (scales === undefined) return { shape, typeId };
  const { tensor, ...blocks } = scales;
  return { shape, typeId, scales: { name: tensor.name, shape: tensor.shape, ...blocks } };
}

/** Throws where `needed` bytes are more than there are; the words say what they are for. */
function requireMemory(needed: number, what: string, hint: string): void {
  const available = availableMemoryBytes();
  if (needed <= available) return;
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
  const sizes = `needs ${gigabytes(needed)}, ${gigabytes(available)} are available`;
  const missing = `${gigabytes(needed - available)} are missing`;
  throw new TinferError("outOfMemory", `${what} ${sizes}: ${missing}`, { hint });
}

export interface PlanAdapters {
  readonly adapters?: readonly Adapter[];
  /** For tables that follow from whole weights. */
  readonly numThreads?: number;
}

export interface CopyOptions {
  /** Copied in one step at most. */
  readonly pieceBytes?: number;
  /** Tensors of which few rows are used. */
  readonly tables?: ReadonlySet<string>;
}

const noNames: ReadonlySet<string> = new Set();

export class ModelFile implements WeightMemory, Disposable {
  readonly header: ModelHeader;
  readonly config: ModelConfig;
  /** By file index; files of which nothing is used as it is are missing. */
  readonly #filesByIndex = new Map<number, ResidentFile>();
  readonly #derived: DerivedWeights;
  /** All that lies in memory: the header's tensors and their scales, by name. */
  readonly #tensors: ReadonlyMap<string, ModelTensor>;
  #interleaved = noNames;

  constructor(path: string, rope: RopeOptions = {}, quantize?: string) {
    this.header = openForRunning(path, quantize);
    requireRunnable(this.header);
    this.config = withRopeOptions(readModelConfig(this.header.metadata), rope);
    const tensors = [...withScales(this.header.tensors.values())];
    this.#tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    this.#derived = new DerivedWeights(tensors.filter(isDerived));
    using cleanup = new DisposableStack();
    this.header.paths.forEach((shard, index) => {
      const start = firstOffset(this.header, index);
      if (start === undefined) return;
      this.#filesByIndex.set(index, cleanup.use(new ResidentFile(shard, start)));
    });
    cleanup.move();
  }

  get #files(): ResidentFile[] {
    return [...this.#filesByIndex.values()];
  }

  #tensor(name: string): ModelTensor {
    const tensor = this.#tensors.get(name);
    assert(tensor !== undefined, `tensor ${name} is in the file`);
    return tensor;
  }

  address(name: string): number {
    const tensor = this.#tensor(name);
    if (!isInFile(tensor)) return this.#derived.address(name);
    return this.#filesByIndex.get(tensor.fileIndex)!.address(tensor);
  }

  bytes(name: string): number {
    return this.#tensor(name).bytes;
  }

  /** Rows of all its matrices; undefined where the file has no such tensor. */
  numRows(name: string): number | undefined {
    const tensor = this.#tensors.get(name);
    return tensor?.shape.slice(0, -1).reduce((product, size) => product * size, 1);
  }

  /**
   * Whatever is copied or made from now on of these tensors lies interleaved; what is mapped stays
   * in rows. Once, before anything is.
   */
  interleave(names: ReadonlySet<string>): void {
    assert(this.copiedBytes + this.madeBytes === 0, "no weights are copied or made yet");
    this.#interleaved = names;
  }

  isInterleaved(name: string): boolean {
    if (!this.#interleaved.has(name)) return false;
    const tensor = this.#tensor(name);
    return !isInFile(tensor) || this.#filesByIndex.get(tensor.fileIndex)!.isCopied(tensor);
  }

  /** Whether any tensor lies interleaved now. */
  get hasInterleaved(): boolean {
    return [...this.#interleaved].some((name) => this.isInterleaved(name));
  }

  /** Whether copies differ from the files in more than their pages. */
  get interleavesCopies(): boolean {
    return [...this.#interleaved].some((name) => isInFile(this.#tensor(name)));
  }

  get isEncoder(): boolean {
    return familyOf(this.config.architecture).isEncoder === true;
  }

  /** What the model is loaded for, unless a caller wants something else. */
  get outputs(): PlanOutputs {
    return this.isEncoder ? "hidden" : "tokens";
  }

  get weightBytes(): number {
    return this.#sumBytes(() => true);
  }

  /** Of the weights that are used as the file has them. */
  get mappedBytes(): number {
    return this.#sumBytes(isInFile);
  }

  #sumBytes(isCounted: (tensor: ModelTensor) => boolean): number {
    const tensors = [...this.#tensors.values()].filter(isCounted);
    return tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  get numParameters(): number {
    let count = 0;
    for (const { shape } of this.header.tensors.values()) count += shape.reduce((a, b) => a * b, 1);
    return count;
  }

  /** The quant type that holds the most bytes. */
  get mainType(): string {
    const bytes = new Map<string, number>();
    for (const { type, bytes: size } of this.header.tensors.values()) {
      bytes.set(type, (bytes.get(type) ?? 0) + size);
    }
    return [...bytes].toSorted((a, b) => b[1] - a[1])[0]![0];
  }

  /** Memory that a copy of all weights takes which are mapped. */
  get copyBytes(): number {
    return this.#files.reduce((sum, file) => sum + file.copyBytes, 0);
  }

  /** Memory that copies of weights take now. */
  get copiedBytes(): number {
    return this.#files.reduce((sum, file) => sum + file.takenBytes, 0);
  }

  /** Memory that tensors take which no file holds as they are used. */
  get derivedBytes(): number {
    return this.#derived.bytes;
  }

  /** What of that is still to be taken. */
  get untakenBytes(): number {
    return this.derivedBytes - this.madeBytes;
  }

  /** What of that is taken. */
  get madeBytes(): number {
    return this.#derived.takenBytes;
  }

  /** Makes the tensors that no file holds as they are used; nothing runs before. */
  *derive(numThreads: number): Generator<LoadProgress> {
    const totalBytes = this.derivedBytes;
    let doneBytes = 0;
    for (const bytes of this.#derived.fill(numThreads, this.#interleaved)) {
      doneBytes += bytes;
      yield { doneBytes, totalBytes };
    }
  }

  /**
   * Maps all pages in file order, which is the order of use, in steps of some milliseconds. Those
   * of `tables`, tensors of which only rows are read, come as far as the page cache.
   */
  *populate(tables: ReadonlySet<string>): Generator<LoadProgress> {
    const totalBytes = this.#files.reduce((sum, { mapped }) => sum + mapped.bytes, 0);
    // A file larger than free memory would push its own first pages out: it loads at first use.
    if (totalBytes >= availableMemoryBytes()) return;
    let doneBytes = 0;
    for (const [index, file] of this.#filesByIndex) {
      for (const bytes of file.populate(this.#places(index, tables))) {
        doneBytes += bytes;
        yield { doneBytes, totalBytes };
      }
    }
  }

  /** Where tensors of one file lie, in order. */
  #places(fileIndex: number, names: ReadonlySet<string>): FileTensor[] {
    const tensors = [...names].flatMap((name) => this.#tensors.get(name) ?? []);
    const inFile = tensors.filter(isInFile).filter((tensor) => tensor.fileIndex === fileIndex);
    return inFile.toSorted((a, b) => a.offset - b.offset);
  }

  /**
   * Copies what is not yet copied into huge pages, interleaved where that was chosen; each step
   * makes more tensors lie there. `tables` stay in the file.
   */
  *copy(
    numThreads: number,
    { pieceBytes = copyStepBytes, tables = noNames }: CopyOptions = {},
  ): Generator<LoadProgress> {
    this.requireCopyMemory();
    const work = [...this.#filesByIndex].map(([index, file]) => {
      const [leaveOut, panels] = [tables, this.#interleaved].map((names) => {
        return this.#places(index, names);
      });
      return { file, leaveOut: leaveOut!, panels: panels! };
    });
    const totalBytes = work
      .flatMap(({ file, leaveOut }) => file.uncopied(leaveOut))
      .reduce((sum, { bytes }) => sum + bytes, 0);
    let doneBytes = 0;
    for (const { file, leaveOut, panels } of work) {
      for (;;) {
        const bytes = file.copy(pieceBytes, numThreads, leaveOut, panels);
        if (bytes === 0) break;
        doneBytes += bytes;
        yield { doneBytes, totalBytes };
        // Here everyone has moved to the copy.
        file.discardCopied();
      }
    }
  }

  /** Whether the weights lie on huge pages without a copy. */
  get isOnHugePages(): boolean {
    return this.#files.every((file) => file.isOnHugePages);
  }

  /** Throws unless the rest of the weights can be copied; says what is missing. */
  requireCopyMemory(): void {
    const hint = "--load lazy (in a chat: /lazy on) runs them from the mapped file";
    requireMemory(this.copyBytes - this.copiedBytes, "copying the weights into memory", hint);
  }

  /** Throws unless the weights that are made at load have room; says what is missing. */
  requireDerivedMemory(): void {
    const hint =
      "`tinfer quantize` writes them to a GGUF file, which is mapped; a smaller type needs less";
    requireMemory(this.untakenBytes, "making weights at load", hint);
  }

  /** Keeps the weights in memory where they lie now. */
  lock(): void {
    for (const file of this.#files) file.lock();
    this.#derived.lock();
  }

  /** All tensors lie in the mapped files again; what is returned may go once nobody reads it. */
  takeCopies(): Disposable {
    const copies = new DisposableStack();
    for (const file of this.#files) copies.use(file.takeCopy());
    return copies;
  }

  buildPlan(
    outputs: PlanOutputs,
    options: Pick<PlanOptions, "slidingWindow" | "contextLen">,
    { adapters = [], numThreads = 1 }: PlanAdapters = {},
  ): Plan {
    const readTensor = (name: string) => {
      const tensor = this.header.tensors.get(name);
      return tensor && readTensorFloats(this.header, tensor);
    };
    const builder = new PlanBuilder(
      {
        find: (name) => {
          const tensor = this.header.tensors.get(name);
          return tensor && factsOf(tensor);
        },
        values: readTensor,
        readRows: (name, first, count) => {
          return readTensorRows(this.header, { tensor: this.#tensor(name), first, count });
        },
        sumRows: (name, first, count, vectors) => {
          const rows = { tensor: this.#tensor(name), first, count };
          return sumTensorRows(this.header, rows, vectors, numThreads);
        },
      },
      outputs,
      adapters,
    );
    return familyOf(this.config.architecture).buildPlan(builder, this.config, {
      ...options,
      readTensor,
    });
  }

  [Symbol.dispose](): void {
    this.#derived[Symbol.dispose]();
    for (const file of this.#files.toReversed()) file[Symbol.dispose]();
  }
}
