// The adapters of a loaded model: owns their mapped files, knows where their factors lie, and by
// which scales they enter a step. The model's own weights are never touched.
import type { WeightMemory } from "../backend/backend.ts";
import { assert, TinferError } from "../core/errors.ts";
import type { Adapter } from "../plan/adapters.ts";
import type { AdapterChoice, AdapterScale } from "./adapter-choice.ts";
import { type AdaptedFile, type OpenAdapter, openAdapter } from "./adapter-file.ts";

export class AdapterSet implements Disposable {
  #choices: readonly AdapterChoice[];
  readonly #files: OpenAdapter[] = [];

  constructor(choices: readonly AdapterChoice[], model: AdaptedFile) {
    using cleanup = new DisposableStack();
    for (const choice of choices) {
      this.#files.push(cleanup.use(openAdapter(choice, model)));
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

  /** Of these, what is used in place; the rest are tables of the plan. */
  get mappedBytes(): number {
    const places = this.#files.flatMap((file) => [...file.places.values()]);
    return places.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The model's weights and the adapters' factors, by name. */
  memory(model: WeightMemory): WeightMemory {
    const fileOf = (name: string) => this.#files.find((file) => file.places.has(name));
    return {
      address: (name) => fileOf(name)?.address(name) ?? model.address(name),
      bytes: (name) => fileOf(name)?.places.get(name)?.bytes ?? model.bytes(name),
      isInterleaved: (name) => fileOf(name) === undefined && model.isInterleaved(name),
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
