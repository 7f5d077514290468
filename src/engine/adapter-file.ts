// One adapter in memory, whichever form it has on disk: a GGUF file is mapped and used in place,
// a PEFT folder's factors are read and put in GGUF's order.
import { TinferError } from "../core/errors.ts";
import { type FolderFactor, openAdapterFolder } from "../hugging-face/adapter-folder.ts";
import type { ModelConfig } from "../models/model-config.ts";
import { lockMemory, MappedFile } from "../native/memory.ts";
import type { Adapter, Factor, LowRank } from "../plan/adapters.ts";
import { readGguf, type TensorInfo } from "../weights/gguf.ts";
import { readLora } from "../weights/lora-file.ts";
import { quantTypeInfo } from "../weights/quant-types.ts";
import { readFloats } from "../weights/rows.ts";
import type { AdapterChoice } from "./adapter-choice.ts";
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

export function openAdapter(choice: AdapterChoice, config: ModelConfig): OpenAdapter {
  return isModelFolder(choice.path)
    ? readFolder(choice, config)
    : new AdapterFile(choice, config.architecture);
}

/** Factors are small: they are read as plain floats, tables of the plan. */
function readFolder({ name, path }: AdapterChoice, config: ModelConfig): OpenAdapter {
  const [numHeads, numKvHeads] = [config.numHeads, config.numKvHeads].map((counts) => counts[0]!);
  const model = { ...config, numHeads: numHeads!, numKvHeads: numKvHeads! };
  const updates = new Map<string, LowRank>();
  let bytes = 0;
  for (const [target, { a, b, gain }] of openAdapterFolder(path, model)) {
    const factor = ({ shape, rows }: FolderFactor, part: string): Factor => {
      const length = rows.numRows * rows.cols;
      const constant = { length, make: () => readFloats(rows, 0, rows.numRows) };
      bytes += length * 4;
      return { name: `${name}: ${target}.${part}`, shape, typeId: f32TypeId, constant };
    };
    updates.set(target, { a: factor(a, "lora_a"), b: factor(b, "lora_b"), gain });
  }
  return {
    adapter: { name, updates },
    bytes,
    places: new Map(),
    address: (factor) => {
      throw new Error(`assertion failed: ${factor} lies in a file`);
    },
    lock() {},
    [Symbol.dispose]() {},
  };
}

const f32TypeId = quantTypeInfo("f32").ggmlType;

/** An adapter's file, or its parts, in memory. */
class AdapterFile implements OpenAdapter {
  readonly adapter: Adapter;
  /** Of its factors. */
  readonly bytes: number;
  readonly #mapped: MappedFile[] = [];
  readonly places = new Map<string, TensorInfo>();

  constructor({ name, path }: AdapterChoice, architecture: string) {
    const header = readGguf(path);
    const lora = readLora(header);
    if (lora.architecture !== architecture) {
      const made = `adapter ${name} is for models of architecture '${lora.architecture}'`;
      throw new TinferError("usage", `${made}, this one is '${architecture}'`, {
        hint: "use it with the model that it was made for",
      });
    }
    const updates = new Map<string, LowRank>();
    for (const [target, { a, b }] of lora.pairs) {
      const rank = b.shape.at(-1)!;
      const gain = lora.alpha === 0 ? 1 : lora.alpha / rank;
      const factor = (tensor: TensorInfo, part: string) =>
        this.#factor(`${name}: ${target}.${part}`, tensor);
      updates.set(target, { a: factor(a, "lora_a"), b: factor(b, "lora_b"), gain });
    }
    this.adapter = { name, updates };
    this.bytes = [...this.places.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    using cleanup = new DisposableStack();
    for (const part of header.paths) this.#mapped.push(cleanup.use(new MappedFile(part)));
    cleanup.move();
  }

  #factor(name: string, tensor: TensorInfo): Factor {
    this.places.set(name, tensor);
    return { name, shape: tensor.shape, typeId: quantTypeInfo(tensor.type).ggmlType };
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
