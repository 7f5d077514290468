// The mixture-of-experts MLP that families share: router, routed experts, and their sum.
import type { PlanBuilder } from "../plan/builder.ts";
import type { Activation, Routing, Tensor } from "../plan/ops.ts";

/** What most routers do: the best `numExpertsPerToken` by softmax, weights that add up to 1. */
export function softmaxRouting(numExpertsPerToken: number): Routing {
  return {
    scoring: "softmax",
    numExpertsPerToken,
    selectionBias: undefined,
    ...{ numGroups: 1, numGroupsUsed: 1, groupScore: "max" },
    normalise: true,
    scale: 1,
  };
}

export interface ExpertMlp {
  readonly layer: number;
  readonly numExperts: number;
  /** MLP width of one expert. */
  readonly intermediateSize: number;
  readonly routing: Routing;
  readonly activation: Activation;
}

/** residual += the experts' answers to `input`, weighted. */
export function addExperts(b: PlanBuilder, input: Tensor, residual: Tensor, mlp: ExpertMlp): void {
  const { layer, numExperts, intermediateSize, routing } = mlp;
  const hiddenSize = input.width;
  const name = (part: string) => `blk.${layer}.${part}.weight`;
  /** Files before April 2024 have a tensor per expert. */
  const experts = (part: string, rows: number, cols: number) => {
    const single = (expert: number) => name(`${part}.${expert}`);
    return b.experts(name(`${part}_exps`), single, [numExperts, rows, cols]);
  };
  const router = b.weight(name("ffn_gate_inp"), numExperts, hiddenSize);
  const chosen = b.route(b.linear(input, router), routing);
  const gate = experts("ffn_gate", intermediateSize, hiddenSize);
  const up = experts("ffn_up", intermediateSize, hiddenSize);
  const gated = b.expertGlu(input, chosen, { gate, up }, mlp.activation);
  const down = experts("ffn_down", hiddenSize, intermediateSize);
  b.expertLinear(gated, chosen, down, { residual });
}
