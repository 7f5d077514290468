// Which experts a model's tokens went to, layer by layer, and how even that is.
import { TinferError } from "../core/errors.ts";
import type { Plan } from "../plan/builder.ts";
import type { ExpertCounts } from "../plan/expert-counters.ts";
import type { OpOf } from "../plan/ops.ts";

/** One layer's use of its experts. */
export interface LayerExpertUse {
  readonly layer: number;
  readonly numExpertsPerToken: number;
  /** Tokens that were routed. */
  readonly tokens: number;
  /** How often each expert was chosen. */
  readonly counts: readonly number[];
  /** Entropy of the choices over its largest possible value: 1 = all experts alike. */
  readonly balance: number;
  /** Standard deviation of the counts over their mean: 0 = all experts alike. */
  readonly variation: number;
}

export interface ExpertUse {
  /** Mean over the layers, each as often as it routed a token. */
  readonly balance: number;
  readonly variation: number;
  readonly layers: readonly LayerExpertUse[];
}

/** What who asks for the use of experts is told where there are none. */
export function noExperts(): TinferError {
  return new TinferError("usage", "--moe-stats: this model has no experts", {
    hint: "it is for mixtures of experts, such as Mixtral, Qwen3-MoE or DeepSeek",
  });
}

/** Undefined where the model has no experts. */
export function expertUse(plan: Plan, counts: ExpertCounts): ExpertUse | undefined {
  if (counts.routes.length === 0) return undefined;
  const layers = counts.routes.map((route, index) => {
    const { numExpertsPerToken } = route.op.routing;
    return layerUse(layerOf(plan, route.op, index), numExpertsPerToken, counts.of(route));
  });
  const total = layers.reduce((sum, { tokens }) => sum + tokens, 0);
  const mean = (figureOf: (layer: LayerExpertUse) => number) =>
    layers.reduce((sum, layer) => sum + layer.tokens * figureOf(layer), 0) / Math.max(1, total);
  return {
    balance: mean(({ balance }) => balance),
    variation: mean(({ variation }) => variation),
    layers,
  };
}

/** The number in the names of the experts that read this routing; else the place among routes. */
function layerOf(plan: Plan, { output }: OpOf<"route">, index: number): number {
  const reader = plan.ops.find((op) => op.kind === "expertGlu" && op.routing === output);
  const name = reader?.kind === "expertGlu" ? reader.gate[0]!.name : "";
  const number = /^blk\.(\d+)\./.exec(name)?.[1];
  return number === undefined ? index : Number(number);
}

export function layerUse(layer: number, numExpertsPerToken: number, counts: number[]) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const mean = total / counts.length;
  const variance = counts.reduce((sum, count) => sum + (count - mean) ** 2, 0) / counts.length;
  const entropy = counts.reduce((sum, count) => {
    return count === 0 ? sum : sum - (count / total) * Math.log(count / total);
  }, 0);
  return {
    ...{ layer, numExpertsPerToken, tokens: total / numExpertsPerToken, counts },
    balance: counts.length > 1 && total > 0 ? entropy / Math.log(counts.length) : 1,
    variation: total > 0 ? Math.sqrt(variance) / mean : 0,
  };
}
