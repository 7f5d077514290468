// Tiny plans of a mixture of experts, whose tokens are rows of `x`, `logits` and `residual`.
import { PlanBuilder } from "../../src/plan/builder.ts";
import type { Routing } from "../../src/plan/ops.ts";
import type { QuantType } from "../../src/weights/quant-types.ts";
import type { Random } from "./random.ts";
import type { TestWeights } from "./test-weights.ts";

export const maxExpertRows = 64;

/** Experts, and how many of them each token takes. */
export const expertCounts = [
  [8, 2],
  [3, 3],
  [5, 1],
  [16, 4],
  [1, 1],
] as const;

export const plainRouting: Routing = {
  scoring: "softmax",
  numExpertsPerToken: 2,
  selectionBias: undefined,
  ...{ numGroups: 1, numGroupsUsed: 1, groupScore: "max" },
  normalise: true,
  scale: 1,
};

export interface ExpertSizes {
  readonly k: number;
  readonly width: number;
  readonly n: number;
}

export interface ExpertCase {
  readonly types: readonly [gate: QuantType, up: QuantType, down: QuantType];
  readonly numExperts: number;
  readonly numSlots: number;
  readonly hasBias: boolean;
}

/** Router logits in steps of 1/16, so that some are equal and none nearly so. */
export function routerLogits(random: Random, numExperts: number): Float32Array {
  const logits = random.normals(maxExpertRows * numExperts, 2);
  return logits.map((value) => Math.round(value * 16) / 16);
}

export function addInputs(
  weights: TestWeights,
  random: Random,
  numExperts: number,
  { k, n }: ExpertSizes,
): void {
  const rows = maxExpertRows;
  weights.addFloats("x", random.activations(rows, k), [rows, k]);
  weights.addFloats("residual", random.normals(rows * n), [rows, n]);
  // The first experts are chosen more often than the last: both regimes in one step.
  const logits = routerLogits(random, numExperts);
  const skewed = logits.map((value, i) => value - (i % numExperts) / 2);
  weights.addFloats("logits", skewed, [rows, numExperts]);
}

/** All matrices of one projection, and each by itself under the name of old files. */
export function addExperts(
  weights: TestWeights,
  random: Random,
  name: string,
  type: QuantType,
  [count, rows, cols]: readonly [number, number, number],
): Uint8Array[] {
  const matrices = Array.from({ length: count }, () => random.weights(type, rows, cols));
  weights.add(name, type, [count, rows, cols], Buffer.concat(matrices));
  matrices.forEach((matrix, e) => {
    weights.add(`${name}.${e}`, type, [rows, cols], matrix);
  });
  weights.addFloats(`${name}.bias`, random.normals(count * rows, 0.2), [count, rows]);
  return matrices;
}

/** The ops of an MLP of experts that lie stacked, or, where there is no stack, one by one. */
export function expertOps(weights: TestWeights, item: ExpertCase, s: ExpertSizes) {
  const { numExperts, numSlots, hasBias } = item;
  const b = new PlanBuilder(weights, "hidden");
  const maxRows = weights.find("x")!.shape[0]!;
  const table = b.weight("x", maxRows, s.k);
  const x = b.embed(table);
  const logits = b.embed(b.weight("logits", maxRows, numExperts));
  const residual = b.embed(b.weight("residual", maxRows, s.n));
  const routing = b.route(logits, { ...plainRouting, numExpertsPerToken: numSlots });
  const stack = (name: string, rows: number, cols: number) => ({
    weights: b.experts(name, (e) => `${name}.${e}`, [numExperts, rows, cols]),
    bias: hasBias ? b.weight(`${name}.bias`, numExperts, rows) : undefined,
  });
  const [gate, up] = [stack("gate", s.width, s.k), stack("up", s.width, s.k)];
  const gated = b.expertGlu(x, routing, { gate, up }, "silu");
  const down = stack("down", s.n, s.width);
  const stored = b.expertLinear(gated, routing, down);
  b.expertLinear(gated, routing, down, { residual });
  return { b, x, routing, gated, stored, residual, numTokens: table.rows };
}
