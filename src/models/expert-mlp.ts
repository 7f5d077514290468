// The mixture-of-experts MLP that families share: router, routed experts, the experts that every
// token goes to, and their sum.
import { assert } from "../core/errors.ts";
import type { ExpertStack } from "../plan/adapter-ops.ts";
import type { PlanBuilder } from "../plan/builder.ts";
import type { ExpertWeights, Gate, Routing, Tensor } from "../plan/ops.ts";
import { addProjection, gatedMlp, type Layer, project } from "./blocks.ts";
import type { ModelConfig } from "./model-config.ts";

/** What most routers do: the best experts by softmax, weights that add up to 1; groups apply. */
export function softmaxRouting({ experts }: ModelConfig): Routing {
  const { numExpertsPerToken, numGroups, numGroupsUsed } = experts;
  return {
    scoring: "softmax",
    selectionBias: undefined,
    ...{ numExpertsPerToken, numGroups, numGroupsUsed, groupScore: "top2_sum" },
    normalise: true,
    scale: experts.scale,
  };
}

/** MLP width of one expert: as stated, else the layer's width is for all that a token uses. */
export function expertSize({ experts }: ModelConfig, { index, intermediateSize }: Layer): number {
  const stated = experts.intermediateSizes?.[index];
  return stated || Math.floor(intermediateSize / Math.max(1, experts.numExpertsPerToken));
}

export interface ExpertMlp {
  readonly numExperts: number;
  /** MLP width of one expert. */
  readonly intermediateSize: number;
  readonly routing: Routing;
  readonly activation: Gate;
  /** Whether a slot's weight is on what its expert reads, not on its answer. */
  readonly weighsInput?: boolean;
}

/** The experts' answers to `input`, weighted: a new tensor, or added to `residual`. */
export function routedExperts(
  b: PlanBuilder,
  input: Tensor,
  { name }: Layer,
  mlp: ExpertMlp,
  residual?: Tensor,
): Tensor {
  const { numExperts, intermediateSize, routing, activation, weighsInput = false } = mlp;
  const hiddenSize = input.width;
  const chosen = b.route(project(b, input, name("ffn_gate_inp"), numExperts), routing);
  const stack = (part: string, weights: ExpertWeights): ExpertStack => {
    const bias = b.optionalRows(`${name(part)}_exps.bias`, numExperts, weights[0]!.rows);
    return { weights, bias, target: `${name(part)}_exps.weight` };
  };
  const { gate, up } = gateAndUp(b, name, numExperts, intermediateSize, hiddenSize);
  const read = weighsInput ? b.scaleSlots(input, chosen) : input;
  const stacks = { gate: stack("ffn_gate", gate), up: stack("ffn_up", up) };
  const gated = b.expertGlu(read, chosen, stacks, activation);
  const down = expertMatrices(b, name, "ffn_down", [numExperts, hiddenSize, intermediateSize]);
  return b.expertLinear(gated, chosen, stack("ffn_down", down), {
    ...(residual && { residual }),
    isWeighted: !weighsInput,
  });
}

type NameOf = Layer["name"];

/** Files before April 2024 have a tensor per expert. */
function expertMatrices(
  b: PlanBuilder,
  name: NameOf,
  part: string,
  shape: readonly [count: number, rows: number, cols: number],
) {
  const single = (expert: number) => `${name(part)}.${expert}.weight`;
  return b.experts(`${name(part)}_exps.weight`, single, shape);
}

/** Some files have each expert's gate and, after it, its up in one tensor. */
function gateAndUp(b: PlanBuilder, name: NameOf, count: number, rows: number, cols: number) {
  const fused = `${name("ffn_gate_up_exps")}.weight`;
  if (b.hasWeight(fused)) {
    const part = (index: number) => b.expertParts(fused, [count, 2, rows, cols], index);
    return { gate: part(0), up: part(1) };
  }
  const part = (of: string) => expertMatrices(b, name, of, [count, rows, cols]);
  return { gate: part("ffn_gate"), up: part("ffn_up") };
}

/** residual += the MLP; in files with experts theirs, each as wide as a dense one unless said. */
export function addMlpOrExperts(
  b: PlanBuilder,
  input: Tensor,
  layer: Layer,
  config: ModelConfig,
  residual: Tensor,
  intermediateSize = layer.intermediateSize,
): void {
  const { numExperts } = config.experts;
  if (numExperts === 0) {
    addProjection(b, gatedMlp(b, input, layer, "silu"), layer.name("ffn_down"), residual);
    return;
  }
  const routing = softmaxRouting(config);
  const mlp = { numExperts, intermediateSize, routing, activation: "silu" } as const;
  routedExperts(b, input, layer, mlp, residual);
}

/** residual += the MLP of the experts that every token goes to, `intermediateSize` wide in all. */
export function addSharedExperts(
  b: PlanBuilder,
  input: Tensor,
  layer: Layer,
  intermediateSize: number,
  residual: Tensor,
): void {
  assert(intermediateSize > 0, "shared experts have a width");
  const gated = gatedMlp(b, input, layer, "silu", { suffix: "_shexp", intermediateSize });
  addProjection(b, gated, layer.name("ffn_down_shexp"), residual);
}
