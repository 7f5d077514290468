// The user's rope settings over a model's own: scaling for contexts beyond the trained one. Applied
// to the config before any plan is built, so families and everything after see one config.
import { TinferError } from "../core/errors.ts";
import type { ModelConfig, RopeScaling } from "./model-config.ts";

export const ropeScalings = ["none", "linear", "yarn"] as const;

/** undefined: as the model has it. Each field has the flag of its name. */
export interface RopeOptions {
  readonly ropeScaling?: (typeof ropeScalings)[number] | undefined;
  /** Factor by which the context grows. */
  readonly ropeScale?: number | undefined;
  readonly ropeTheta?: number | undefined;
  /** Context length before stretching. */
  readonly yarnOrigCtx?: number | undefined;
  /** 1 mixes interpolation and extrapolation as YaRN has it, 0 interpolates alone. */
  readonly yarnExtFactor?: number | undefined;
  /** Further factor on attention's magnitude. */
  readonly yarnAttnFactor?: number | undefined;
  readonly yarnBetaFast?: number | undefined;
  readonly yarnBetaSlow?: number | undefined;
}

/** What each option must be; NaN fails every test. */
const bounds: Readonly<
  Record<Exclude<keyof RopeOptions, "ropeScaling">, { test(n: number): boolean; text: string }>
> = {
  ropeScale: { test: (n) => n > 0 && n <= 1024, text: "a number above 0, at most 1024" },
  ropeTheta: { test: (n) => n > 1 && n <= 1e12, text: "a number above 1, at most 1e12" },
  yarnOrigCtx: {
    test: (n) => Number.isInteger(n) && n > 0 && n <= 1 << 28,
    text: "a whole number of tokens",
  },
  yarnExtFactor: { test: (n) => n >= 0 && n <= 1, text: "a number from 0 to 1" },
  yarnAttnFactor: { test: (n) => n > 0 && n <= 1024, text: "a number above 0, at most 1024" },
  yarnBetaFast: { test: (n) => n > 0 && n <= 1e6, text: "a number above 0" },
  yarnBetaSlow: { test: (n) => n > 0 && n <= 1e6, text: "a number above 0" },
};

/** The option's flag, e.g. "--yarn-orig-ctx". */
export function ropeFlag(option: string): string {
  return `--${option.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** The options that are set, by name. */
export function givenRopeOptions(options: RopeOptions): string[] {
  const entries = Object.entries(options) as [string, unknown][];
  return entries.filter(([, value]) => value !== undefined).map(([name]) => name);
}

/** Throws for values out of range and for options that would change nothing. */
function check(options: RopeOptions, own: RopeScaling): void {
  const kind = options.ropeScaling ?? own.kind;
  for (const name of givenRopeOptions(options)) {
    const flag = ropeFlag(name);
    const value = options[name as keyof RopeOptions];
    const bound = bounds[name as keyof typeof bounds];
    if (bound !== undefined && !bound.test(value as number)) {
      throw new TinferError("usage", `${flag} is ${value}, wanted ${bound.text}`);
    }
    if (name.startsWith("yarn") && kind !== "yarn") {
      throw new TinferError("usage", `${flag} changes nothing: the rope scaling is ${kind}`, {
        hint: "add --rope-scaling yarn",
      });
    }
    if (name === "ropeScale" && kind === "none") {
      throw new TinferError("usage", `${flag} changes nothing: the rope scaling is none`, {
        hint: "add --rope-scaling linear or yarn",
      });
    }
  }
  const { ropeScaling, ropeScale, yarnAttnFactor } = options;
  if (ropeScaling === undefined || ropeScaling === "none" || ropeScale !== undefined) return;
  if (own.factor !== 1 || own.kind === "longrope" || yarnAttnFactor !== undefined) return;
  throw new TinferError(
    "usage",
    `--rope-scaling ${kind} changes nothing: the model's factor is 1`,
    {
      hint: "add --rope-scale N, the factor by which the context grows",
    },
  );
}

/** Throws for options that `because` change nothing in the model. */
export function refuseRopeOptions({ ropeScaling, ownRope }: ModelConfig, because: string): void {
  if (ropeScaling === ownRope.scaling) return;
  throw new TinferError("usage", `options for the rope change nothing: ${because}`, {
    hint: "leave them out",
  });
}

/** Context length that the file's own scaling starts from. */
function unscaledContextLen({ contextLen, ropeScaling }: ModelConfig): number {
  const { kind, factor, originalContextLen } = ropeScaling;
  // Files with linear scaling state the stretched length alone.
  if (kind === "linear" && originalContextLen === contextLen) return contextLen / factor;
  return originalContextLen;
}

/** The config with the options in the place of the file's values. */
export function withRopeOptions(config: ModelConfig, options: RopeOptions): ModelConfig {
  if (givenRopeOptions(options).length === 0) return config;
  const own = config.ropeScaling;
  const kind = options.ropeScaling ?? own.kind;
  check(options, own);
  const factor = kind === "none" ? 1 : (options.ropeScale ?? own.factor);
  const unscaledLen = options.yarnOrigCtx ?? unscaledContextLen(config);
  const { ropeScaling, ropeScale, yarnOrigCtx, yarnAttnFactor } = options;
  const isStretched = [ropeScaling, ropeScale, yarnOrigCtx].some((value) => value !== undefined);
  // The scaling is a new object, by which `refuseRopeOptions` knows that there were options.
  return {
    ...config,
    ropeTheta: options.ropeTheta ?? config.ropeTheta,
    scaledContextLen: isStretched ? Math.floor(unscaledLen * factor) : config.contextLen,
    ropeScaling: {
      kind,
      factor,
      originalContextLen: options.yarnOrigCtx ?? own.originalContextLen,
      attentionFactor:
        yarnAttnFactor === undefined
          ? own.attentionFactor
          : yarnAttnFactor * (own.attentionFactor ?? 1),
      extrapolationFactor: options.yarnExtFactor ?? own.extrapolationFactor,
      betaFast: options.yarnBetaFast ?? own.betaFast,
      betaSlow: options.yarnBetaSlow ?? own.betaSlow,
      logMultiplier: own.logMultiplier,
    },
  };
}
