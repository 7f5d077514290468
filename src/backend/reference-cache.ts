// The KV cache of the reference backend: keys and values by slot, rounded to the storage type.
import { TinferError } from "../core/errors.ts";
import { blockSize, type PlanLimits } from "../plan/arena.ts";
import type { Cache, KvType } from "../plan/ops.ts";

const bfloat = new Float32Array(1);
const bfloatBits = new Uint32Array(bfloat.buffer);

/** Rounds to the cache's storage type, to nearest even. */
function roundTo(type: KvType, value: number): number {
  if (type === "f32") return Math.fround(value);
  if (type === "f16") return Math.f16round(value);
  if (type === "bf16") {
    bfloat[0] = value;
    const bits = bfloatBits[0]!;
    bfloatBits[0] = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
    return bfloat[0]!;
  }
  throw new TinferError("unsupported", `the reference backend has no ${type} KV cache`, {
    hint: "use --kv-type f32, f16 or bf16",
  });
}

/** One layer's keys and values, `[slot, numKvHeads, dim]`; slot = block * blockSize + offset. */
export class ReferenceCache {
  readonly keys: Float64Array;
  readonly values: Float64Array;
  readonly #limits: PlanLimits;

  constructor(cache: Cache, limits: PlanLimits) {
    const slots = limits.numBlocks * blockSize;
    this.keys = new Float64Array(slots * cache.numKvHeads * cache.headDim);
    this.values = new Float64Array(slots * cache.numKvHeads * cache.valueDim);
    this.#limits = limits;
  }

  store(cache: Cache, slot: number, k: Float64Array, v: Float64Array): void {
    const { kvTypeK, kvTypeV } = this.#limits;
    const kStart = slot * cache.numKvHeads * cache.headDim;
    const vStart = slot * cache.numKvHeads * cache.valueDim;
    k.forEach((value, i) => {
      this.keys[kStart + i] = roundTo(kvTypeK, value);
    });
    v.forEach((value, i) => {
      this.values[vStart + i] = roundTo(kvTypeV, value);
    });
  }
}
