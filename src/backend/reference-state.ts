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

/** Rows of an activation in this step. */
export function rowsOf(step: StepData, tensor: Tensor): number {
  return tensor.rows === "tokens" ? step.numTokens : step.numOutputs;
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
