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

/** How far a scaling stretches positions; 1 = not at all. */
export function stretchOf({ kind, factor }: RopeScaling): number {
  return kind === "none" ? 1 : factor;
}

/** Whether a scaling keeps frequencies that turn often, and with that raises the magnitude. */
export function isMixed({ kind, extrapolationFactor }: RopeScaling): boolean {
  return kind === "yarn" && extrapolationFactor !== 0;
}

export interface RopeTable {
  /** Radians per position, `[rotaryDim / 2]`. */
  readonly frequencies: Float32Array;
  /** Factor on cosines and sines (YaRN's attention temperature). */
  readonly magnitude: number;
}

/**
 * `factors[i]` divides frequency i (Llama 3.1 and LongRoPE store them in the file). `stretch`: of
 * layers that are stretched differently from the model as a whole.
 */
export function ropeTable(
  config: RopeConfig,
  factors?: ArrayLike<number>,
  stretch = stretchOf(config.ropeScaling),
): RopeTable {
  const { rotaryDim, ropeTheta, ropeScaling } = config;
  const numPairs = Math.floor(rotaryDim / 2);
  if (factors !== undefined && factors.length !== numPairs) {
    const message = `the file has ${factors.length} rope factors for ${numPairs} frequencies`;
    throw new TinferError("invalidFile", message, { hint: "convert the model again" });
  }
  const frequencies = new Float32Array(numPairs);
  const mixed = isMixed(ropeScaling);
  const extrapolation = ropeScaling.extrapolationFactor ?? 1;
  for (let i = 0; i < numPairs; i++) {
    const base = ropeTheta ** ((-2 * i) / rotaryDim) / (factors?.[i] ?? 1);
    const mix = mixed ? yarnRamp(config, i) * extrapolation : 0;
    frequencies[i] = (base / stretch) * (1 - mix) + base * mix;
  }
  const temperature = mixed ? mixedTemperature(ropeScaling, stretch) : 1;
  return { frequencies, magnitude: (ropeScaling.attentionFactor ?? 1) * temperature };
}

/** The model's own temperature, with the part that follows a layer's stretch taken from that. */
function mixedTemperature(scaling: RopeScaling, stretch: number): number {
  const whole = stretchOf(scaling);
  const own = yarnTemperature(whole, 1) / yarnTemperature(whole, scaling.logMultiplier);
  return (own * temperatureGrowth(stretch, 1)) / temperatureGrowth(whole, 1);
}

/** What makes up for flatter attention over longer contexts (YaRN, eq. 22). */
export function yarnTemperature(stretch: number, multiplier: number): number {
  return stretch <= 1 ? 1 : temperatureGrowth(stretch, multiplier);
}

/** The same below a stretch of 1 too. */
export function temperatureGrowth(stretch: number, multiplier: number): number {
  return 1 + 0.1 * multiplier * Math.log(stretch);
}

/**
 * Factors of the file, if it has any: one set for all contexts (Llama 3.1), or one for those of
 * the first training and one for longer ones (LongRoPE).
 */
export function ropeFactors(
  { ownRope }: ModelConfig,
  { contextLen, readTensor }: PlanOptions,
): Float32Array | undefined {
  const length = contextLen > ownRope.scaling.originalContextLen ? "long" : "short";
  return readTensor("rope_freqs.weight") ?? readTensor(`rope_factors_${length}.weight`);
}

/** The op that makes each token's cosines and sines; undefined where nothing rotates. */
export function addRotations(
  b: PlanBuilder,
  config: RopeConfig,
  factors?: ArrayLike<number>,
  stretch?: number,
): Tensor | undefined {
  const { frequencies, magnitude } = ropeTable(config, factors, stretch);
  if (frequencies.length === 0) return undefined;
  return b.rotations(b.constant("rope frequencies", frequencies), magnitude);
}

/**
 * Rotations of layers with a window, which see no further however long the context: base and
 * stretch are the file's whatever the user asks for (`own`: what families put in the place of
 * the file's); how they are stretched, and YaRN's parameters, are those of all layers.
 */
export function addWindowRotations(
  b: PlanBuilder,
  config: ModelConfig,
  rotations: Tensor | undefined,
  own: { ropeTheta?: number; stretch?: number } = {},
  factors?: ArrayLike<number>,
): Tensor | undefined {
  const { ownRope } = config;
  const { ropeTheta = ownRope.windowTheta ?? ownRope.theta } = own;
  const { stretch = ownRope.scaling.factor } = own;
  const isSame = ropeTheta === config.ropeTheta && stretch === stretchOf(config.ropeScaling);
  return isSame ? rotations : addRotations(b, { ...config, ropeTheta }, factors, stretch);
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
