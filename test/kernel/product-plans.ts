// Tiny plans around one op of matrix products, whose input `x` is looked up in a table.
import { PlanBuilder } from "../../src/plan/builder.ts";
import type { Activation } from "../../src/plan/ops.ts";
import type { TestWeights } from "./test-weights.ts";

/** Rows of one step: one, the rows regime with its remainders, and tiles with theirs. */
export const productRowCounts = [1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 33, 64];
export const maxProductRows = 64;

export interface Matrix {
  readonly name: string;
  readonly n: number;
  readonly bias?: string | undefined;
}

/** A product for each of `matrices`. */
export function productPlan(weights: TestWeights, k: number, matrices: readonly Matrix[]) {
  const b = new PlanBuilder(weights, "hidden");
  const table = b.weight("x", weights.find("x")!.shape[0]!, k);
  const input = b.embed(table);
  const outputs = b.linears(
    input,
    matrices.map(({ name, n, bias }) => ({
      weight: b.weight(name, n, k),
      bias: bias === undefined ? undefined : b.vector(bias, n),
    })),
  );
  return { plan: b.finishHidden(input, table.rows), outputs };
}

/** Adds the product with `w` and the bias `b` to rows of `residual`. */
export function accumulatePlan(weights: TestWeights, k: number, n: number) {
  const b = new PlanBuilder(weights, "hidden");
  const table = b.weight("x", maxProductRows, k);
  const input = b.embed(table);
  const output = b.embed(b.weight("residual", maxProductRows, n));
  b.linearAccumulate(input, b.weight("w", n, k), output, b.vector("b", n));
  return { plan: b.finishHidden(output, table.rows), outputs: [output] };
}

/** Of `gate` and `up`, with `gateBias` and `upBias` where there are biases. */
export function gluPlan(
  weights: TestWeights,
  [k, n]: readonly [number, number],
  activation: Activation,
  hasBias: boolean,
) {
  const b = new PlanBuilder(weights, "hidden");
  const table = b.weight("x", maxProductRows, k);
  const biases = hasBias ? { gate: b.vector("gateBias", n), up: b.vector("upBias", n) } : {};
  const pair = [b.weight("gate", n, k), b.weight("up", n, k)] as const;
  const output = b.linearGlu(b.embed(table), ...pair, activation, biases);
  return { plan: b.finishHidden(output, table.rows), outputs: [output] };
}
