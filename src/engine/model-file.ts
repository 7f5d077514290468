// A model file that is open: its header, its mapped bytes, and where each tensor lies in memory.
import type { WeightMemory } from "../backend/backend.ts";
import { assert, TinferError } from "../core/errors.ts";
import { architectureOf, type ModelConfig, readModelConfig } from "../models/model-config.ts";
import { familyOf } from "../models/registry.ts";
import { MappedFile, viewMemory } from "../native/memory.ts";
import { type Plan, PlanBuilder, type PlanOutputs } from "../plan/builder.ts";
import { type GgufFile, readGguf, type TensorInfo } from "../weights/gguf.ts";
import { quantTypeInfo } from "../weights/quant-types.ts";
import { availableMemoryBytes } from "./machine.ts";

/** Throws unless the file has weights, of an architecture that tinfer knows. */
export function requireRunnable({ paths, metadata, tensors }: GgufFile): void {
  const architecture = architectureOf(metadata);
  if (tensors.size === 0) {
    throw new TinferError("unsupported", `${paths[0]} holds a vocabulary but no weights`, {
      hint: "it serves `tinfer tokenize`, `show` and `render` only",
    });
  }
  familyOf(architecture);
}

/** A step takes 4 ms from the page cache and about a quarter of a second from a slow disk. */
const populateStepBytes = 64 * 2 ** 20;

/** Who waits for a model to load: may stop it and sees how far it is, in bytes. */
export interface LoadWatch {
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export class ModelFile implements WeightMemory, Disposable {
  readonly header: GgufFile;
  readonly config: ModelConfig;
  readonly #mapped: MappedFile[] = [];

  constructor(path: string) {
    this.header = readGguf(path);
    requireRunnable(this.header);
    this.config = readModelConfig(this.header.metadata);
    using cleanup = new DisposableStack();
    for (const shard of this.header.paths) this.#mapped.push(cleanup.use(new MappedFile(shard)));
    cleanup.move();
  }

  #tensor(name: string): TensorInfo {
    const tensor = this.header.tensors.get(name);
    assert(tensor !== undefined, `tensor ${name} is in the file`);
    return tensor;
  }

  address(name: string): number {
    const { fileIndex, offset } = this.#tensor(name);
    return this.#mapped[fileIndex]!.address + offset;
  }

  bytes(name: string): number {
    return this.#tensor(name).bytes;
  }

  get weightBytes(): number {
    let bytes = 0;
    for (const tensor of this.header.tensors.values()) bytes += tensor.bytes;
    return bytes;
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

  /** A file larger than free memory would push its own first pages out: it loads at first use. */
  #fitsMemory(): boolean {
    return this.weightBytes < availableMemoryBytes();
  }

  /** Brings the whole file into memory ahead of the first step. */
  populate(): void {
    if (!this.#fitsMemory()) return;
    this.#mapped.forEach((file) => {
      file.populate(0, file.bytes);
    });
  }

  /** The same in steps, so that signals and progress get their turn in between. */
  async populateInSteps(watch: LoadWatch): Promise<void> {
    if (!this.#fitsMemory()) return;
    const total = this.#mapped.reduce((sum, file) => sum + file.bytes, 0);
    let done = 0;
    for (const file of this.#mapped) {
      for (let offset = 0; offset < file.bytes; offset += populateStepBytes) {
        const bytes = Math.min(populateStepBytes, file.bytes - offset);
        file.populate(offset, bytes);
        done += bytes;
        watch.onProgress?.(done, total);
        await new Promise((resolve) => setImmediate(resolve));
        if (watch.signal?.aborted) throw new TinferError("cancelled", "loading was interrupted");
      }
    }
  }

  buildPlan(outputs: PlanOutputs, slidingWindow: "auto" | "off" | number): Plan {
    const builder = new PlanBuilder(
      {
        find: (name) => {
          const tensor = this.header.tensors.get(name);
          return tensor && { shape: tensor.shape, typeId: quantTypeInfo(tensor.type).ggmlType };
        },
      },
      outputs,
    );
    const readVector = (name: string) => {
      if (this.header.tensors.get(name)?.type !== "f32") return undefined;
      return new Float32Array(viewMemory(this.address(name), this.bytes(name)));
    };
    return familyOf(this.config.architecture).buildPlan(builder, this.config, {
      slidingWindow,
      readVector,
    });
  }

  [Symbol.dispose](): void {
    for (const file of this.#mapped.toReversed()) file[Symbol.dispose]();
  }
}
