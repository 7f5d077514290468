// Flags that stretch a model's rope, for contexts beyond the one that it was trained for.
import { type RopeOptions, ropeScalings } from "../models/rope-options.ts";
import type { Flags, FlagValues } from "./flags.ts";

const number = (description: string) =>
  ({ kind: "number", placeholder: "N", description }) as const;

export const ropeFlags: Flags = {
  "rope-scaling": {
    kind: "text",
    choices: ropeScalings,
    description: "how rope is stretched for contexts beyond the trained one; default: the model's",
  },
  "rope-scale": {
    ...number("factor by which the context grows; default: the model's"),
    elsewhere: ["rope-freq-scale"],
  },
  "rope-theta": {
    ...number("base of the rope frequencies; default: the model's"),
    elsewhere: ["rope-freq-base"],
  },
  "yarn-orig-ctx": number("YaRN: context length before stretching; default: the model's"),
  "yarn-ext-factor": number("YaRN: extrapolation mix, 0 = interpolation alone; default: 1"),
  "yarn-attn-factor": number("YaRN: further factor on attention's magnitude; default: 1"),
  "yarn-beta-fast": number("YaRN: rotations from which on frequencies stay; default: 32"),
  "yarn-beta-slow": number("YaRN: rotations below which they are stretched; default: 1"),
};

export function ropeOptions(values: FlagValues): RopeOptions {
  return {
    ropeScaling: values.text("rope-scaling") as RopeOptions["ropeScaling"],
    ropeScale: values.number("rope-scale"),
    ropeTheta: values.number("rope-theta"),
    yarnOrigCtx: values.number("yarn-orig-ctx"),
    yarnExtFactor: values.number("yarn-ext-factor"),
    yarnAttnFactor: values.number("yarn-attn-factor"),
    yarnBetaFast: values.number("yarn-beta-fast"),
    yarnBetaSlow: values.number("yarn-beta-slow"),
  };
}
