// Runs plans with weights in rows and then with some of them interleaved: the layout, threads,
// tuning and the other rows of a step must not change one bit of a row.
import { defaultTuning, type Tuning } from "../../src/backend/tuning.ts";
import { canInterleave } from "../../src/native/interleave.ts";
import type { Plan } from "../../src/plan/builder.ts";
import type { Tensor } from "../../src/plan/ops.ts";
import { type QuantType, quantTypeInfo } from "../../src/weights/quant-types.ts";
import { expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor } from "./executor.ts";
import { stepOf } from "./op-case.ts";
import { Random, weightTypes } from "./random.ts";
import type { TestWeights } from "./test-weights.ts";

export function canLieInterleaved(type: QuantType, cols: number): boolean {
  return canInterleave(quantTypeInfo(type).ggmlType, cols);
}

/** The types that may lie interleaved, if rows are so long or a multiple of that. */
export const interleavedTypes = weightTypes.filter((type) => canLieInterleaved(type, 256));

export interface LayoutCase {
  readonly what: string;
  readonly plan: Plan;
  /** All in rows. */
  readonly weights: TestWeights;
  readonly outputs: readonly Tensor[];
  /** Token ids are 0 to `numTokens` - 1; the results of each depend on it alone. */
  readonly numTokens: number;
  /** Some are few, some are not. */
  readonly rowCounts: readonly number[];
  /** What becomes interleaved before each turn, beside what already is. */
  readonly turns: readonly (readonly string[])[];
}

/** As it comes; few rows as far as they go, in short slices; tiles for all, or long slices. */
const tunings: readonly Tuning[] = [
  defaultTuning,
  { ...defaultTuning, rowsRegime: 32, floatRowsRegime: 32, streamBytes: 0, prefetchBytes: 0 },
  { ...defaultTuning, rowsRegime: 0, floatRowsRegime: 0, prefetchBytes: 2 ** 20 },
  { ...defaultTuning, rowsRegime: 9, streamBytes: 2 ** 20, cachedStreamBytes: 0 },
];

/** Steps of up to so many rows have memory for no more. */
const fewRows = 32;

/** Rows `tokenIds` of the results of all tokens. */
function pickRows(all: Float32Array, tokenIds: readonly number[], width: number): Float32Array {
  const picked = new Float32Array(tokenIds.length * width);
  tokenIds.forEach((id, row) => {
    picked.set(all.subarray(id * width, (id + 1) * width), row * width);
  });
  return picked;
}

export function checkLayouts(given: LayoutCase): void {
  const { what, plan, weights, outputs, numTokens, rowCounts, turns } = given;
  using inRows = new TestExecutor(plan, limitsFor(numTokens), weights, cpuVariants.at(-1)!);
  inRows.run(plainStep(numTokens));
  const whole = outputs.map((output) => inRows.read(output));
  const random = new Random(`layouts of ${what}`);
  const check = (cpu: TestExecutor, count: number, where: string) => {
    const tokenIds = random.shuffled(numTokens).slice(0, count);
    cpu.run(stepOf(tokenIds));
    outputs.forEach((output, o) => {
      const expected = pickRows(whole[o]!, tokenIds, output.width);
      const label = `${what}: output ${o}, ${count} rows, ${where}`;
      expectSameBits(cpu.read(output), expected, output.width, label);
    });
  };
  const isFew = (count: number) => count <= fewRows;
  turns.forEach((names, turn) => {
    for (const name of names) weights.interleave(name);
    for (const [i, variant] of cpuVariants.entries()) {
      const numThreads = 1 + ((turn + i) % 3);
      for (const counts of [rowCounts.filter(isFew), rowCounts.filter((n) => !isFew(n))]) {
        const limits = limitsFor(Math.max(...counts));
        using cpu = new TestExecutor(plan, limits, weights, variant, numThreads);
        for (const [t, tuning] of tunings.entries()) {
          cpu.session.tune(tuning);
          const where = `turn ${turn}, ${variant}, ${numThreads} threads, tuning ${t}`;
          for (const count of counts) check(cpu, count, where);
        }
      }
    }
  });
}
