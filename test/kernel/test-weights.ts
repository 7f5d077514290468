// Weights of a tiny plan in memory, each between two pages that must not be touched: kernels may
// read at most 64 bytes past a weight and nothing before it.
import { dlopen } from "bun:ffi";
import type { WeightMemory } from "../../src/backend/backend.ts";
import { interleaveRows } from "../../src/native/interleave.ts";
import { MemoryRegion, viewMemory } from "../../src/native/memory.ts";
import type { WeightFacts, WeightSource } from "../../src/plan/weight-table.ts";
import { type QuantType, quantTypeInfo, tensorBytes } from "../../src/weights/quant-types.ts";

/** A multiple of every platform's page. */
const guardBytes = 65536;
const mostOverread = 64;
/** `general.alignment` of files that do not set it. */
const fileAlignment = 32;

const noAccess = 0;

/** Makes a range of whole pages inaccessible; only Linux is asked to. */
function protect(address: number, bytes: number): void {
  if (process.platform !== "linux") return;
  const type = { mprotect: { args: ["ptr", "u64", "i32"], returns: "i32" } } as const;
  const status = dlopen("libc.so.6", type).symbols.mprotect(address as never, bytes, noAccess);
  if (status !== 0) throw new Error("mprotect failed");
}

interface Placed {
  readonly shape: readonly number[];
  readonly type: QuantType;
  readonly content: Uint8Array;
  readonly region: MemoryRegion;
  readonly address: number;
  readonly isInterleaved?: boolean;
  readonly scales?: WeightFacts["scales"];
}

export class TestWeights implements WeightSource, WeightMemory, Disposable {
  readonly #placed = new Map<string, Placed>();

  /** `content` is copied. The weight lies against the guard behind it, or the one before it. */
  add(
    name: string,
    type: QuantType,
    shape: readonly number[],
    content: Uint8Array,
    against: "end" | "start" = "end",
  ): void {
    const bytes = tensorBytes(type, shape);
    if (content.length !== bytes) throw new Error(`${name}: ${content.length} of ${bytes} bytes`);
    const inside = Math.ceil((bytes + mostOverread + fileAlignment) / guardBytes) * guardBytes;
    const region = new MemoryRegion(inside + 3 * guardBytes, "small", "test weights");
    const first = Math.ceil(region.address / guardBytes) * guardBytes + guardBytes;
    const last = first + inside;
    const atEnd = Math.floor((last - mostOverread - bytes) / fileAlignment) * fileAlignment;
    const address = against === "start" ? first : atEnd;
    new Uint8Array(viewMemory(address, bytes)).set(content);
    protect(first - guardBytes, guardBytes);
    protect(last, guardBytes);
    this.#placed.set(name, { shape, type, content, region, address });
  }

  addFloats(name: string, values: Float32Array, shape: readonly number[] = [values.length]): void {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    this.add(name, "f32", shape, bytes);
  }

  /** Gives the weight `name`, of 8-bit floats, a scale for each block of its rows and columns. */
  addScales(name: string, values: Float32Array, [blockRows, blockCols]: readonly [number, number]) {
    const weight = this.#get(name);
    const perRow = Math.ceil(weight.shape.at(-1)! / blockCols);
    const scales = { name: `${name}_scale`, shape: [values.length / perRow, perRow] };
    this.addFloats(scales.name, values, scales.shape);
    this.#placed.set(name, { ...weight, scales: { ...scales, blockRows, blockCols } });
  }

  /** From now on it lies interleaved, where it was; its rows are a multiple of 16. */
  interleave(name: string): void {
    const weight = this.#get(name);
    if (weight.isInterleaved) throw new Error(`${name} is interleaved already`);
    const { shape, type, address } = weight;
    const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
    interleaveRows(address, rows, shape.at(-1)!, quantTypeInfo(type).ggmlType);
    this.#placed.set(name, { ...weight, isInterleaved: true });
  }

  #get(name: string): Placed {
    const found = this.#placed.get(name);
    if (found === undefined) throw new Error(`no test weight '${name}'`);
    return found;
  }

  find(name: string): WeightFacts | undefined {
    const found = this.#placed.get(name);
    if (found === undefined) return undefined;
    const { shape, type, scales } = found;
    return { shape, typeId: quantTypeInfo(type).ggmlType, ...(scales && { scales }) };
  }
  values(name: string): Float32Array | undefined {
    const found = this.#placed.get(name);
    return found && new Float32Array(found.content.slice().buffer);
  }
  /** As in a file, however it lies. */
  content(name: string): Uint8Array {
    return this.#get(name).content;
  }
  address(name: string): number {
    return this.#get(name).address;
  }
  bytes(name: string): number {
    return this.#get(name).content.length;
  }
  isInterleaved(name: string): boolean {
    return this.#get(name).isInterleaved === true;
  }

  [Symbol.dispose](): void {
    for (const { region } of this.#placed.values()) region[Symbol.dispose]();
    this.#placed.clear();
  }
}
