// The memory of tensors that no file holds as they are used: taken at once, filled tensor by
// tensor, each from a few chunks, so that a conversion never needs more than its result.
import { assert } from "../core/errors.ts";
import { cpuReport } from "../native/cpu-report.ts";
import { lockMemory, MemoryRegion, viewMemory } from "../native/memory.ts";
import { mostOverRead } from "../plan/tables.ts";
import type { DerivedTensor } from "../weights/model-header.ts";
import { derivedContent } from "../weights/rows.ts";
import { interleaveFilled } from "./interleaving.ts";

/** Tensors begin on cache lines. */
const alignment = 64;

export class DerivedWeights implements Disposable {
  readonly #tensors: readonly DerivedTensor[];
  readonly #offsets = new Map<string, number>();
  /** What they take, in whole pages. */
  readonly bytes: number;
  #region: MemoryRegion | undefined;
  #isFilled = false;

  constructor(tensors: readonly DerivedTensor[]) {
    this.#tensors = tensors;
    let end = 0;
    for (const { name, bytes } of tensors) {
      this.#offsets.set(name, end);
      end += Math.ceil((bytes + mostOverRead) / alignment) * alignment;
    }
    const { pageBytes } = cpuReport();
    this.bytes = Math.ceil(end / pageBytes) * pageBytes;
  }

  get takenBytes(): number {
    return this.#region?.bytes ?? 0;
  }

  /** Where a tensor lies, or will lie once it is made. */
  address(name: string): number {
    const offset = this.#offsets.get(name);
    assert(offset !== undefined, `tensor ${name} is derived`);
    this.#region ??= new MemoryRegion(this.bytes, "huge", "weights");
    return this.#region.address + offset;
  }

  /** Makes all tensors, those of `interleaved` as panels, once; each step is a chunk of one. */
  *fill(numThreads: number, interleaved: ReadonlySet<string>): Generator<number> {
    if (this.#isFilled) return;
    for (const tensor of this.#tensors) {
      const { name } = tensor;
      const address = this.address(name);
      let end = 0;
      for (const chunk of derivedContent(tensor, numThreads)) {
        // Viewed by chunks: tensors of experts may be larger than an ArrayBuffer can be.
        new Uint8Array(viewMemory(address + end, chunk.length)).set(chunk);
        const piece = { offset: end, bytes: chunk.length };
        if (interleaved.has(name)) interleaveFilled(address, { ...tensor, offset: 0 }, piece);
        end += chunk.length;
        yield chunk.length;
      }
      assert(end === tensor.bytes, `${name}: ${end} bytes made, not ${tensor.bytes}`);
    }
    this.#isFilled = true;
  }

  lock(): void {
    if (this.#region === undefined) return;
    lockMemory(this.#region.address, this.#region.bytes, "--mlock");
  }

  [Symbol.dispose](): void {
    this.#region?.[Symbol.dispose]();
    this.#region = undefined;
  }
}
