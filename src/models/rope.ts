// Rotary position embedding: the table of frequencies that a family's rotations use, with the
// context extensions folded in. Formulas: RoFormer (arXiv 2104.09864), position interpolation
// (arXiv 2306.15595), YaRN (arXiv 2309.00071).
import type { ModelConfig } from "./model-config.ts";

export interface RopeTable {
  /** Radians per position, `[rotaryDim / 2]`. */
  readonly frequencies: Float32Array;
  /** Factor on cosines and sines (YaRN's attention temperature). */
  readonly magnitude: number;
}

/** `factors[i]` divides frequency i (Llama 3.1 and LongRoPE store them in the file). */
export function ropeTable(config: ModelConfig, factors?: ArrayLike<number>): RopeTable {
  const { rotaryDim, ropeTheta, ropeScaling } = config;
  const numPairs = Math.floor(rotaryDim / 2);
  const frequencies = new Float32Array(numPairs);
  const stretch = ropeScaling.kind === "none" ? 1 : ropeScaling.factor;
  const yarn = ropeScaling.kind === "yarn";
  const extrapolation = ropeScaling.extrapolationFactor ?? 1;
  for (let i = 0; i < numPairs; i++) {
    const base = ropeTheta ** ((-2 * i) / rotaryDim) / (factors?.[i] ?? 1);
    const mix = yarn ? yarnRamp(config, i) * extrapolation : 0;
    frequencies[i] = (base / stretch) * (1 - mix) + base * mix;
  }
  const temperature = yarn && extrapolation !== 0 ? 1 + 0.1 * Math.log(stretch) : 1;
  return { frequencies, magnitude: (ropeScaling.attentionFactor ?? 1) * temperature };
}

/** Index of the pair that turns `rotations` times within the original context (YaRN, eq. 17). */
function correctionIndex(config: ModelConfig, rotations: number): number {
  const { rotaryDim, ropeTheta, ropeScaling } = config;
  const turns = ropeScaling.originalContextLen / (rotations * 2 * Math.PI);
  return (rotaryDim * Math.log(turns)) / (2 * Math.log(ropeTheta));
}

/** 1 keeps a pair's frequency (it turns often), 0 interpolates it (YaRN, eq. 18 to 20). */
function yarnRamp(config: ModelConfig, pair: number): number {
  const { betaFast, betaSlow } = config.ropeScaling;
  const low = Math.max(0, Math.floor(correctionIndex(config, betaFast)));
  const high = Math.min(config.rotaryDim - 1, Math.ceil(correctionIndex(config, betaSlow)));
  const ramp = (pair - low) / Math.max(0.001, high - low);
  return 1 - Math.min(1, Math.max(0, ramp));
}
