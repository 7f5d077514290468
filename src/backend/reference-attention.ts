// Attention of the reference backend: rotation, KV cache writes, softmax over the visible
// positions. No tiling, no online softmax.
import { blockSize } from "../plan/arena.ts";
import type { OpOf } from "../plan/ops.ts";
import type { StepData } from "../plan/step-data.ts";
import { type ReferenceState, rowOf } from "./reference-state.ts";

/** Calls `visit` for each token row with its sequence and its index in that sequence's cache. */
function forEachRow(
  step: StepData,
  visit: (row: number, sequence: number, cacheIndex: number) => void,
): void {
  for (let s = 0; s < step.numSequences; s++) {
    const start = step.queryStarts[s]!;
    const end = step.queryStarts[s + 1]!;
    for (let row = start; row < end; row++) visit(row, s, step.kvLens[s]! - (end - row));
  }
}

function slotOf(step: StepData, sequence: number, cacheIndex: number): number {
  const entry = sequence * step.blockTableStride + Math.floor(cacheIndex / blockSize);
  return step.blockTables[entry]! * blockSize + (cacheIndex % blockSize);
}

/** Rotates the pairs of each head of `row` in place (RoFormer, arXiv 2104.09864). */
function rotate(
  row: Float64Array,
  headDim: number,
  table: Float64Array,
  interleaved: boolean,
): void {
  const n = table.length / 2;
  for (let head = 0; head < row.length; head += headDim) {
    for (let i = 0; i < n; i++) {
      const a = head + (interleaved ? 2 * i : i);
      const b = head + (interleaved ? 2 * i + 1 : i + n);
      const [x, y] = [row[a]!, row[b]!];
      row[a] = x * table[i]! - y * table[n + i]!;
      row[b] = x * table[n + i]! + y * table[i]!;
    }
  }
}

export function prepareQkv(state: ReferenceState, op: OpOf<"qkvPrep">): void {
  forEachRow(state.step, (row, sequence, cacheIndex) => {
    const k = rowOf(state, op.k, row);
    if (op.rotations !== undefined && op.pairing !== "none") {
      const table = rowOf(state, op.rotations, row);
      const interleaved = op.pairing === "interleaved";
      rotate(rowOf(state, op.q, row), op.cache.headDim, table, interleaved);
      rotate(k, op.cache.headDim, table, interleaved);
    }
    const slot = slotOf(state.step, sequence, cacheIndex);
    state.caches[op.cache.id]!.store(op.cache, slot, k, rowOf(state, op.v, row));
  });
}

export function attend(state: ReferenceState, op: OpOf<"attentionPaged">): void {
  forEachRow(state.step, (row, sequence, cacheIndex) => {
    for (let head = 0; head < op.numHeads; head++)
      attendHead(state, op, row, sequence, cacheIndex, head);
  });
}

function attendHead(
  state: ReferenceState,
  op: OpOf<"attentionPaged">,
  row: number,
  sequence: number,
  cacheIndex: number,
  head: number,
): void {
  const { numKvHeads, headDim, valueDim } = op.cache;
  const cache = state.caches[op.cache.id]!;
  const kvHead = Math.floor(head / (op.numHeads / numKvHeads));
  const q = rowOf(state, op.q, row).subarray(head * headDim, (head + 1) * headDim);
  const window = op.windowLen === 0 ? 0 : Math.max(0, cacheIndex - op.windowLen + 1);
  const chunk = op.chunkLen === 0 ? 0 : cacheIndex - (cacheIndex % op.chunkLen);
  const first = Math.max(window, chunk);
  const end = op.causal ? cacheIndex + 1 : state.step.kvLens[sequence]!;
  const scores: number[] = [];
  for (let index = first; index < end; index++) {
    const start = (slotOf(state.step, sequence, index) * numKvHeads + kvHead) * headDim;
    let score = 0;
    for (let d = 0; d < headDim; d++) score += q[d]! * cache.keys[start + d]!;
    score *= op.scale;
    scores.push(op.softcap > 0 ? op.softcap * Math.tanh(score / op.softcap) : score);
  }
  const sink = op.sinks && state.weightRow(op.sinks, 0)[head]!;
  const highest = Math.max(...scores, sink ?? Number.NEGATIVE_INFINITY);
  const weights = scores.map((score) => Math.exp(score - highest));
  const sinkWeight = sink === undefined ? 0 : Math.exp(sink - highest);
  const total = weights.reduce((sum, weight) => sum + weight, sinkWeight);
  const output = rowOf(state, op.output, row).subarray(head * valueDim, (head + 1) * valueDim);
  output.fill(0);
  weights.forEach((weight, i) => {
    const start = (slotOf(state.step, sequence, first + i) * numKvHeads + kvHead) * valueDim;
    for (let d = 0; d < valueDim; d++) output[d]! += (weight / total) * cache.values[start + d]!;
  });
}
