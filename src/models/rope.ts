// Rotary position embedding: the table of frequencies that a family's rotations use, with the
// context extensions folded in. Formulas: RoFormer (arXiv 2104.09864), position interpolation
// (arXiv 2306.15595), YaRN (arXiv 2309.00071), LongRoPE (arXiv 2402.13753).
import { TinferError } from "../core/errors.ts";
import type { PlanBuilder } from "../plan/builder.ts";
import type { Tensor } from "../plan/ops.ts";
import type { PlanOptions } from "./family.ts";
import type { ModelConfig, RopeScaling } from "./model-config.ts";

/** What a table is made from. */
export type RopeConfig = Pick<ModelConfig, "rotaryDim" | "ropeTheta" | "ropeScaling">;

/** Plain rotations. */
export const unscaled: RopeScaling = {
  ...{ kind: "none", factor: 1, originalContextLen: 0, logMultiplier: 0 },
  ...{ attentionFactor: undefined, extrapolationFactor: undefined, betaFast: 32, betaSlow: 1 },
};

export interface RopeTable {
  /** Radians per position, `[rotaryDim / 2]`. */
  readonly frequencies: Float32Array;
  /** Factor on cosines and sines (YaRN's attention temperature). */
  readonly magnitude: number;
}

/** `factors[i]` divides frequency i (Llama 3.1 and LongRoPE store them in the file). */
export function ropeTable(config: RopeConfig, factors?: ArrayLike<number>): RopeTable {
  const { rotaryDim, ropeTheta, ropeScaling } = config;
  const numPairs = Math.floor(rotaryDim / 2);
  if (factors !== undefined && factors.length !== numPairs) {
    const message = `the file has ${factors.length} rope factors for ${numPairs} frequencies`;
    throw new TinferError("invalidFile", message, { hint: "convert the model again" });
  }
  const frequencies = new Float32Array(numPairs);
  const stretch = ropeScaling.kind === "none" ? 1 : ropeScaling.factor;
  const yarn = ropeScaling.kind === "yarn";
  const extrapolation = ropeScaling.extrapolationFactor ?? 1;
  for (let i = 0; i < numPairs; i++) {
    const base = ropeTheta ** ((-2 * i) / rotaryDim) / (factors?.[i] ?? 1);
    const mix = yarn ? yarnRamp(config, i) * extrapolation : 0;
    frequencies[i] = (base / stretch) * (1 - mix) + base * mix;
  }
  const { logMultiplier } = ropeScaling;
  const temperature =
    yarn && extrapolation !== 0
      ? yarnTemperature(stretch, 1) / yarnTemperature(stretch, logMultiplier)
      : 1;
  return { frequencies, magnitude: (ropeScaling.attentionFactor ?? 1) * temperature };
}

/** What makes up for flatter attention over longer contexts (YaRN, eq. 22). */
export function yarnTemperature(stretch: number, multiplier: number): number {
  return stretch <= 1 ? 1 : 1 + 0.1 * multiplier * Math.log(stretch);
}

/**
 * Factors of the file, if it has any: one set for all contexts (Llama 3.1), or one for those of
 * the first training and one for longer ones (LongRoPE).
 */
export function ropeFactors(
  { ropeScaling }: ModelConfig,
  { contextLen, readTensor }: PlanOptions,
): Float32Array | undefined {
  const length = contextLen > ropeScaling.originalContextLen ? "long" : "short";
  return readTensor("rope_freqs.weight") ?? readTensor(`rope_factors_${length}.weight`);
}

/** The op that makes each token's cosines and sines; undefined where nothing rotates. */
export function addRotations(
  b: PlanBuilder,
  config: RopeConfig,
  factors?: ArrayLike<number>,
): Tensor | undefined {
  const { frequencies, magnitude } = ropeTable(config, factors);
  if (frequencies.length === 0) return undefined;
  return b.rotations(b.constant("rope frequencies", frequencies), magnitude);
}

/** Index of the pair that turns `rotations` times within the original context (YaRN, eq. 17). */
function correctionIndex(config: RopeConfig, rotations: number): number {
  const { rotaryDim, ropeTheta, ropeScaling } = config;
  const turns = ropeScaling.originalContextLen / (rotations * 2 * Math.PI);
  return (rotaryDim * Math.log(turns)) / (2 * Math.log(ropeTheta));
}

/** 1 keeps a pair's frequency (it turns often), 0 interpolates it (YaRN, eq. 18 to 20). */
function yarnRamp(config: RopeConfig, pair: number): number {
  const { betaFast, betaSlow } = config.ropeScaling;
  const low = Math.max(0, Math.floor(correctionIndex(config, betaFast)));
  const high = Math.min(config.rotaryDim - 1, Math.ceil(correctionIndex(config, betaSlow)));
  const ramp = (pair - low) / Math.max(0.001, high - low);
  return 1 - Math.min(1, Math.max(0, ramp));
}
