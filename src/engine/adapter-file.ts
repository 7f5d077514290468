// One adapter in memory, whichever form it has on disk: a GGUF file is mapped and used in place,
// a PEFT folder's factors are read and put in GGUF's order.
import { TinferError } from "../core/errors.ts";
import {
  type AdaptedModel,
  type FolderFactor,
  openAdapterFolder,
} from "../hugging-face/adapter-folder.ts";
import type { ModelConfig } from "../models/model-config.ts";
import { lockMemory, MappedFile } from "../native/memory.ts";
import type { Adapter, Factor, LowRank } from "../plan/adapters.ts";
import type { Table } from "../plan/ops.ts";
import { type GgufFile, readGguf, type TensorInfo } from "../weights/gguf.ts";
import { readLora } from "../weights/lora-file.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import { quantTypeInfo } from "../weights/quant-types.ts";
import { type RowSource, readFloats } from "../weights/rows.ts";
import { readTensorFloats } from "../weights/tensor-content.ts";
import type { AdapterChoice } from "./adapter-choice.ts";
import { type AdaptedSizes, type FloatFactor, knownForms } from "./adapter-forms.ts";
import { isModelFolder } from "./open-model.ts";

export interface OpenAdapter extends Disposable {
  readonly adapter: Adapter;
  /** Of its factors. */
  readonly bytes: number;
  /** Where the factors lie that are used in place. */
  readonly places: ReadonlyMap<string, TensorInfo>;
  address(name: string): number;
  lock(): void;
}

/** What of a model its adapters are read by. */
export interface AdaptedFile {
  readonly config: ModelConfig;
  readonly header: Pick<ModelHeader, "tensors">;
}

export function openAdapter(choice: AdapterChoice, model: AdaptedFile): OpenAdapter {
  if (isModelFolder(choice.path)) return readFolder(choice, model);
  return new AdapterFile(choice, model.config);
}

const f32TypeId = quantTypeInfo("f32").ggmlType;

function sizesOf({ experts, latent, rotaryDim }: ModelConfig): AdaptedSizes {
  const latentHead = latent && {
    keyDim: latent.headDim - rotaryDim,
    valueDim: latent.valueDim,
  };
  return { numExperts: experts.numExperts, latentHead };
}

/** MLP width of one expert, which few files state: that of its down matrix. */
function expertSizeOf({ tensors }: AdaptedFile["header"]): number {
  const down = [...tensors.values()].find(({ name }) => /ffn_down(_exps|\.0)\.weight$/.test(name));
  return down?.shape.at(-1) ?? 0;
}

function tableOf(rows: RowSource): Table {
  const length = rows.numRows * rows.cols;
  return { length, make: () => readFloats(rows, 0, rows.numRows) };
}

/** Factors are small: they are read as plain floats, tables of the plan. */
function readFolder({ name, path }: AdapterChoice, { config, header }: AdaptedFile): OpenAdapter {
  const sizes = sizesOf(config);
  const [numHeads, numKvHeads] = [config.numHeads, config.numKvHeads].map((counts) => counts[0]!);
  const counts = { numHeads: numHeads!, numKvHeads: numKvHeads! };
  const model: AdaptedModel = { ...config, ...sizes, ...counts, expertSize: expertSizeOf(header) };
  const read = new Map<string, LowRank>();
  for (const [target, { a, b, gain, lengths }] of openAdapterFolder(path, model)) {
    const factor = ({ shape, rows }: FolderFactor, part: string): FloatFactor => {
      const constant = tableOf(rows);
      return { name: `${name}: ${target}.${part}`, shape, typeId: f32TypeId, constant };
    };
    const factors = { a: factor(a, "lora_a"), b: factor(b, "lora_b"), gain };
    const own = lengths && { values: tableOf(lengths.rows), of: lengths.of };
    read.set(target, { ...factors, lengths: own });
  }
  // All of them are tables.
  const updates = knownForms(name, read, sizes, (factor) => factor as FloatFactor);
  return {
    adapter: { name, updates },
    bytes: tableBytes(updates),
    places: new Map(),
    address: (factor) => {
      throw new Error(`assertion failed: ${factor} lies in a file`);
    },
    lock() {},
    [Symbol.dispose]() {},
  };
}

/** Of all factors that are tables, once each. */
function tableBytes(updates: ReadonlyMap<string, LowRank>): number {
  const tables = new Set<Table>();
  for (const { a, b } of updates.values()) {
    for (const { constant } of [a, b]) if (constant !== undefined) tables.add(constant);
  }
  return [...tables].reduce((sum, { length }) => sum + 4 * length, 0);
}

/** An adapter's file, or its parts, in memory. */
class AdapterFile implements OpenAdapter {
  readonly adapter: Adapter;
  readonly bytes: number;
  readonly #header: GgufFile;
  readonly #mapped: MappedFile[] = [];
  readonly places = new Map<string, TensorInfo>();

  constructor({ name, path }: AdapterChoice, config: ModelConfig) {
    this.#header = readGguf(path);
    const lora = readLora(this.#header);
    const { architecture } = config;
    if (lora.architecture !== architecture) {
      const made = `adapter ${name} is for models of architecture '${lora.architecture}'`;
      throw new TinferError("usage", `${made}, this one is '${architecture}'`, {
        hint: "use it with the model that it was made for",
      });
    }
    const inFile = new Map<string, LowRank>();
    const tensors = new Map<Factor, TensorInfo>();
    for (const [target, { a, b }] of lora.pairs) {
      const rank = b.shape.at(-1)!;
      const gain = lora.alpha === 0 ? 1 : lora.alpha / rank;
      const factor = (tensor: TensorInfo, part: string): Factor => {
        const typeId = quantTypeInfo(tensor.type).ggmlType;
        const placed = { name: `${name}: ${target}.${part}`, shape: tensor.shape, typeId };
        tensors.set(placed, tensor);
        return placed;
      };
      inFile.set(target, { a: factor(a, "lora_a"), b: factor(b, "lora_b"), gain });
    }
    const asFloats = (factor: Factor) => this.#asFloats(factor, tensors.get(factor)!);
    const updates = knownForms(name, inFile, sizesOf(config), asFloats);
    this.adapter = { name, updates };
    for (const { a, b } of updates.values()) {
      for (const factor of [a, b]) {
        if (factor.constant === undefined) this.places.set(factor.name, tensors.get(factor)!);
      }
    }
    const mappedBytes = [...this.places.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    this.bytes = mappedBytes + tableBytes(updates);
    using cleanup = new DisposableStack();
    for (const part of this.#header.paths) {
      this.#mapped.push(cleanup.use(new MappedFile(part)));
    }
    cleanup.move();
  }

  #asFloats({ name, shape }: Factor, tensor: TensorInfo): FloatFactor {
    const length = shape.reduce((product, size) => product * size, 1);
    const constant = { length, make: () => readTensorFloats(this.#header, tensor) };
    return { name: `${name} (f32)`, shape, typeId: f32TypeId, constant };
  }

  address(name: string): number {
    const { fileIndex, offset } = this.places.get(name)!;
    return this.#mapped[fileIndex]!.address + offset;
  }

  lock(): void {
    for (const { address, bytes } of this.#mapped) lockMemory(address, bytes, "--mlock");
  }

  [Symbol.dispose](): void {
    for (const mapped of this.#mapped.toReversed()) mapped[Symbol.dispose]();
  }
}
