// The adapters of a loaded model: owns their mapped files, knows where their factors lie, and by
// which scales they enter a step. The model's own weights are never touched.
import type { WeightMemory } from "../backend/backend.ts";
import { assert, TinferError } from "../core/errors.ts";
import { lockMemory, MappedFile } from "../native/memory.ts";
import type { Adapter, Factor, LowRank } from "../plan/adapters.ts";
import { readGguf, type TensorInfo } from "../weights/gguf.ts";
import { readLora } from "../weights/lora-file.ts";
import { quantTypeInfo } from "../weights/quant-types.ts";
import type { AdapterChoice, AdapterScale } from "./adapter-choice.ts";

/** An adapter's file, or its parts, in memory. */
class AdapterFile implements Disposable {
  readonly adapter: Adapter;
  /** Of its factors. */
  readonly bytes: number;
  readonly #mapped: MappedFile[] = [];
  readonly #factors = new Map<string, TensorInfo>();

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
    this.bytes = [...this.#factors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    using cleanup = new DisposableStack();
    for (const part of header.paths) this.#mapped.push(cleanup.use(new MappedFile(part)));
    cleanup.move();
  }

  #factor(name: string, tensor: TensorInfo): Factor {
    this.#factors.set(name, tensor);
    return { name, shape: tensor.shape, typeId: quantTypeInfo(tensor.type).ggmlType };
  }

  has(name: string): boolean {
    return this.#factors.has(name);
  }

  tensor(name: string): TensorInfo {
    return this.#factors.get(name)!;
  }

  address(name: string): number {
    const { fileIndex, offset } = this.tensor(name);
    return this.#mapped[fileIndex]!.address + offset;
  }

  lock(): void {
    for (const { address, bytes } of this.#mapped) lockMemory(address, bytes, "--mlock");
  }

  [Symbol.dispose](): void {
    for (const mapped of this.#mapped.toReversed()) mapped[Symbol.dispose]();
  }
}

export class AdapterSet implements Disposable {
  #choices: readonly AdapterChoice[];
  readonly #files: AdapterFile[] = [];

  /** `architecture` is the model's. */
  constructor(choices: readonly AdapterChoice[], architecture: string) {
    using cleanup = new DisposableStack();
    for (const choice of choices) {
      this.#files.push(cleanup.use(new AdapterFile(choice, architecture)));
    }
    this.#choices = choices;
    cleanup.move();
  }

  get choices(): readonly AdapterChoice[] {
    return this.#choices;
  }

  /** Whether these are the adapters that are here, with whatever scales. */
  hasFiles(choices: readonly AdapterChoice[]): boolean {
    if (choices.length !== this.#choices.length) return false;
    return choices.every(({ name, path }, slot) => {
      const own = this.#choices[slot]!;
      return own.name === name && own.path === path;
    });
  }

  /** Other scales of the same files. */
  rescale(choices: readonly AdapterChoice[]): void {
    assert(this.hasFiles(choices), "the same adapters");
    this.#choices = choices;
  }

  /** As plans take them; their places are the slots of the scales. */
  get adapters(): Adapter[] {
    return this.#files.map((file) => file.adapter);
  }

  get bytes(): number {
    return this.#files.reduce((sum, file) => sum + file.bytes, 0);
  }

  /** The model's weights and the adapters' factors, by name. */
  memory(model: WeightMemory): WeightMemory {
    const fileOf = (name: string) => this.#files.find((file) => file.has(name));
    return {
      address: (name) => fileOf(name)?.address(name) ?? model.address(name),
      bytes: (name) => fileOf(name)?.tensor(name).bytes ?? model.bytes(name),
    };
  }

  /** Keeps the factors in memory. */
  lock(): void {
    for (const file of this.#files) file.lock();
  }

  /** One scale per slot: those that the adapters were loaded with. */
  get ownScales(): Float32Array {
    return Float32Array.from(this.#choices, ({ scale }) => scale);
  }

  /** One scale per slot; adapters that `wanted` does not name get none. */
  scales(wanted: readonly AdapterScale[]): Float32Array {
    const unknown = wanted.find(({ name }) => !this.#choices.some((c) => c.name === name));
    if (unknown !== undefined) {
      throw new TinferError("notFound", `there is no adapter '${unknown.name}'`, {
        hint: `loaded are ${this.#choices.map(({ name }) => name).join(", ") || "none"}`,
      });
    }
    return Float32Array.from(this.#choices, ({ name }) => {
      return wanted.find((scale) => scale.name === name)?.scale ?? 0;
    });
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.toReversed()) file[Symbol.dispose]();
  }
}
