// What the ops of the reference backend share: the step's arrays, activations, caches, weights.
import type { Tensor, Weight } from "../plan/ops.ts";
import type { StepData } from "../plan/step-data.ts";
import type { ReferenceCache } from "./reference-cache.ts";

/** What the ops of one session share. Activations are `[rows, width]` in float64. */
export interface ReferenceState {
  readonly step: StepData;
  readonly tensors: Float64Array[];
  readonly caches: readonly ReferenceCache[];
  weightRow(weight: Weight, row: number): Float32Array;
}

/** Row `row` of an activation, `[width]`. */
export function rowOf(state: ReferenceState, tensor: Tensor, row: number): Float64Array {
  return state.tensors[tensor.id]!.subarray(row * tensor.width, (row + 1) * tensor.width);
}
