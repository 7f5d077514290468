// What the ops of the reference backend share: the step's arrays, activations, caches, weights.
import type { ExpertCounts } from "../plan/expert-counters.ts";
import type { Tensor, Weight } from "../plan/ops.ts";
import type { StepData } from "../plan/step-data.ts";
import { quantTypeOf } from "../weights/quant-types.ts";
import type { ReferenceCache } from "./reference-cache.ts";

/** What the ops of one session share. Activations are `[rows, width]` in float64. */
export interface ReferenceState {
  readonly step: StepData;
  readonly tensors: Float64Array[];
  readonly caches: readonly ReferenceCache[];
  readonly expertCounts: ExpertCounts;
  weightRow(weight: Weight, row: number): Float32Array;
}

/** Rows of an activation in this step. */
export function rowsOf(step: StepData, tensor: Tensor): number {
  return tensor.rows === "tokens" ? step.numTokens : step.numOutputs;
}

const single = new Float32Array(1);
const bits = new Uint32Array(single.buffer);

/** To nearest even; below the smallest normal f32 it is zero, as the instructions have it. */
function roundToBf16(value: number): number {
  single[0] = value;
  const word = bits[0]!;
  if (!Number.isFinite(single[0])) return single[0]!;
  if ((word & 0x7f800000) === 0) return 0;
  const half = 0x7fff + ((word >>> 16) & 1);
  bits[0] = (word + half) & 0xffff0000;
  return single[0]!;
}

/** x as products with `weight` take it: BF16 weights meet activations rounded to BF16. */
export function factorsFor(weight: Weight, x: Float64Array): Float64Array {
  return quantTypeOf(weight.typeId)?.name === "bf16" ? x.map(roundToBf16) : x;
}

export function dot(x: Float64Array, w: Float32Array): number {
  let sum = 0;
  for (let k = 0; k < x.length; k++) sum += x[k]! * w[k]!;
  return sum;
}

/** Row `row` of an activation, `[width]`. */
export function rowOf(state: ReferenceState, tensor: Tensor, row: number): Float64Array {
  return state.tensors[tensor.id]!.subarray(row * tensor.width, (row + 1) * tensor.width);
}
