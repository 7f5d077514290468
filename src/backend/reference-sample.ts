// Sampling of the reference backend: hands each output row to the reference sampler.
import type { OpOf } from "../plan/ops.ts";
import { sampleReference } from "../sampling/reference.ts";
import { type ReferenceState, rowOf } from "./reference-state.ts";

export function sampleRows(state: ReferenceState, op: OpOf<"sample">): void {
  const { step } = state;
  for (let row = 0; row < step.numOutputs; row++) {
    const logits = Float32Array.from(rowOf(state, op.logits, row));
    const sample = sampleReference(logits, step.samplingOf(row));
    step.setSampled(row, sample, sample.top);
  }
}
