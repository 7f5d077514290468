// Memory of a plan: places every activation in one arena by liveness, and the layers' caches in
// one KV pool. The numbers here are the memory plan; the executor takes exactly them.
import type { Plan } from "./builder.ts";
import { keptTensors } from "./keep-inputs.ts";
import { type Cache, type KvType, operandsOf, type Rows, type Tensor } from "./ops.ts";

/** Token slots in one block of the KV cache (kernels/plan.zig). */
export const blockSize = 32;

/** Largest step that a loaded plan takes. */
export interface PlanLimits {
  readonly maxTokens: number;
  readonly maxOutputs: number;
  readonly maxSequences: number;
  /** Blocks in the KV pool, shared by all sequences. */
  readonly numBlocks: number;
  readonly maxBlocksPerSequence: number;
  readonly kvTypeK: KvType;
  readonly kvTypeV: KvType;
}

export interface MemoryLayout {
  /** Byte offset of each tensor in the arena, by tensor id. */
  readonly tensorOffsets: readonly number[];
  readonly arenaBytes: number;
  /** Byte offset of each cache in the KV pool, by cache id. */
  readonly cacheOffsets: readonly number[];
  readonly kvBytes: number;
}

const alignment = 64;
const alignUp = (bytes: number) => Math.ceil(bytes / alignment) * alignment;

export function layoutMemory(plan: Plan, limits: PlanLimits): MemoryLayout {
  const cacheOffsets: number[] = [];
  let kvBytes = 0;
  for (const cache of plan.caches) {
    cacheOffsets.push(kvBytes);
    kvBytes += cacheBlockBytes(cache, limits) * limits.numBlocks;
  }
  return { ...layoutArena(plan, limits), cacheOffsets, kvBytes };
}

function rowLimit(rows: Rows, limits: PlanLimits): number {
  return rows === "tokens" ? limits.maxTokens : limits.maxOutputs;
}

/** Steps at which a tensor is first written and last used, inclusive. */
interface Lifetime {
  readonly tensor: Tensor;
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

function lifetimesOf(plan: Plan, limits: PlanLimits): Lifetime[] {
  const first = new Map<Tensor, number>();
  const last = new Map<Tensor, number>();
  plan.ops.forEach((op, index) => {
    const { reads, writes } = operandsOf(op);
    for (const tensor of [...reads, ...writes]) {
      if (!first.has(tensor)) first.set(tensor, index);
      last.set(tensor, index);
    }
  });
  // Results stay readable after the step.
  for (const result of [plan.hidden, plan.scores, plan.logits]) {
    if (result !== undefined) last.set(result, plan.ops.length);
  }
  for (const product of plan.products) {
    for (const tensor of keptTensors(product)) last.set(tensor, plan.ops.length);
  }
  return plan.tensors.map((tensor) => ({
    tensor,
    bytes: alignUp(rowLimit(tensor.rows, limits) * tensor.width * 4),
    first: first.get(tensor) ?? 0,
    last: last.get(tensor) ?? 0,
  }));
}

/** Largest tensors first, each at the lowest offset that no tensor alive at the same time uses. */
function layoutArena(plan: Plan, limits: PlanLimits) {
  const lifetimes = lifetimesOf(plan, limits);
  const tensorOffsets = new Array<number>(plan.tensors.length).fill(0);
  const placed: Lifetime[] = [];
  let arenaBytes = 0;
  for (const item of lifetimes.toSorted((a, b) => b.bytes - a.bytes)) {
    const taken = placed
      .filter((other) => other.first <= item.last && item.first <= other.last)
      .map((other) => ({ start: tensorOffsets[other.tensor.id]!, bytes: other.bytes }))
      .sort((a, b) => a.start - b.start);
    let offset = 0;
    for (const range of taken) {
      if (offset + item.bytes <= range.start) break;
      offset = Math.max(offset, range.start + range.bytes);
    }
    tensorOffsets[item.tensor.id] = offset;
    placed.push(item);
    arenaBytes = Math.max(arenaBytes, offset + item.bytes);
  }
  return { tensorOffsets, arenaBytes };
}

/** V rows are padded to whole vectors of this many dims (kernels/cpu/kv_cache.zig). */
const valueAlignment = 16;

/** Bytes of one head's K or V part of a block, `dims` wide; its layout: kernels/cpu/kv_cache.zig. */
function kvPartBytes(type: KvType, dims: number): number {
  const groups = Math.ceil(dims / 32);
  switch (type) {
    case "f32":
      return blockSize * 4 * dims;
    case "f16":
    case "bf16":
      return blockSize * 2 * dims;
    case "q8_0":
      return blockSize * (dims + 2 * groups);
    case "q4_0":
      return blockSize * 18 * groups;
  }
}

/** One block of one cache in bytes, all KV heads: per head the K part, then the V part. */
export function cacheBlockBytes(
  cache: Cache,
  { kvTypeK, kvTypeV }: Pick<PlanLimits, "kvTypeK" | "kvTypeV">,
): number {
  const valueWidth = Math.ceil(cache.valueDim / valueAlignment) * valueAlignment;
  const k = alignUp(kvPartBytes(kvTypeK, cache.headDim));
  const v = alignUp(kvPartBytes(kvTypeV, valueWidth));
  return (k + v) * cache.numKvHeads;
}
