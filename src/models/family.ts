// What one architecture offers: how to read its files and how to state its plan.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import type { ModelConfig } from "./model-config.ts";

/** Choices of the user that change a plan. */
export interface PlanOptions {
  /** "auto": as the family's reference applies it; a number forces it; "off" ignores it. */
  readonly slidingWindow: "auto" | "off" | number;
  /** Longest sequence that is asked for, in tokens: some models choose rope factors by it. */
  readonly contextLen: number;
  /** A tensor's values in f32, for tables that the model code makes; undefined when absent. */
  readonly readTensor: (name: string) => Float32Array | undefined;
}

export interface Family {
  /** `general.architecture` values it takes. */
  readonly architectures: readonly string[];
  /** Reads whole texts and ends in their hidden states: no logits, no next token. */
  readonly isEncoder?: true;
  buildPlan(builder: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan;
}
