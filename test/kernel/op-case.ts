// One op with its inputs on every CPU variant, with one thread and with three, against the
// reference backend.
import type { Plan } from "../../src/plan/builder.ts";
import type { Tensor } from "../../src/plan/ops.ts";
import { expectNear, expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor, type TestStep } from "./executor.ts";
import type { TestWeights } from "./test-weights.ts";

export interface OpCase {
  readonly what: string;
  readonly plan: Plan;
  readonly weights: TestWeights;
  readonly output: Tensor;
  readonly steps: readonly TestStep[];
  /** Largest NMSE of a row against the reference; 0 = equal bits. */
  readonly tolerance: number;
}

export const maxRows = 70;

/** Runs all steps on all variants, with one thread and with three. */
export function checkCase({ what, plan, weights, output, steps, tolerance }: OpCase): void {
  using reference = new TestExecutor(plan, limitsFor(maxRows), weights, "reference");
  steps.forEach((step, index) => {
    reference.run(step);
    const expected = reference.read(output);
    let first: Float32Array | undefined;
    for (const [i, variant] of cpuVariants.entries()) {
      const numThreads = 1 + 2 * ((i + index) % 2);
      using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, variant, numThreads);
      cpu.run(step);
      const actual = cpu.read(output);
      const where = `${what} step ${index} ${variant}`;
      first ??= actual;
      expectSameBits(actual, first, output.width, `${where} against the first variant`);
      if (tolerance === 0) expectSameBits(actual, expected, output.width, where);
      else expectNear(actual, expected, output.width, tolerance, where);
    }
  });
}

export const rowCounts = [1, 2, 5, 33, maxRows];

export function stepOf(tokenIds: readonly number[], outputRows?: readonly number[]): TestStep {
  const part = { ...plainStep(tokenIds.length).parts[0]!, tokenIds };
  return outputRows === undefined ? { parts: [part] } : { parts: [part], outputRows };
}
