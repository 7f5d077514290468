// The ops without matrix products on every CPU variant against the reference backend: embed,
// gatherRows, norm, rotations. Equal bits between variants where the op says so.
import { describe, test } from "bun:test";
import { PlanBuilder } from "../../src/plan/builder.ts";
import { normKinds } from "../../src/plan/ops.ts";
import { plainStep, type TestStep } from "./executor.ts";
import { checkCase, maxRows, rowCounts, stepOf } from "./op-case.ts";
import { Random, weightTypes } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

for (const type of weightTypes) {
  test(`embed ${type}`, () => {
    const random = new Random(`embed ${type}`);
    const [rows, width] = [90, 768];
    using weights = new TestWeights();
    weights.add("table", type, [rows, width], random.weights(type, rows, width));
    for (const scale of [1, 0.125, 27.712812423706055]) {
      const b = new PlanBuilder(weights, "hidden");
      const table = b.weight("table", rows, width);
      const output = b.embed(table, scale);
      const plan = b.finishHidden(output, table.rows);
      const ids = (count: number) => Array.from({ length: count }, () => random.below(rows));
      const steps = [[rows - 1], ids(7), ids(maxRows)].map((tokenIds) => stepOf(tokenIds));
      const what = `embed ${type} scale ${scale}`;
      // The reference scales and rounds once, the kernel rounds the weight first.
      checkCase({ what, plan, weights, output, steps, tolerance: scale === 1 ? 0 : 1e-13 });
    }
  });
}

test("embed: odd widths of float tables", () => {
  for (const type of ["f32", "f16", "bf16"] as const) {
    for (const width of [1, 7, 33]) {
      const random = new Random(`embed ${type} ${width}`);
      using weights = new TestWeights();
      weights.add("table", type, [maxRows, width], random.weights(type, maxRows, width));
      const b = new PlanBuilder(weights, "hidden");
      const table = b.weight("table", maxRows, width);
      const output = b.embed(table);
      const plan = b.finishHidden(output, table.rows);
      const steps = rowCounts.map((count) => plainStep(count));
      checkCase({ what: `embed ${type} [${width}]`, plan, weights, output, steps, tolerance: 0 });
    }
  }
});

test("gatherRows", () => {
  const random = new Random("gatherRows");
  for (const width of [1, 15, 64, 300]) {
    using weights = new TestWeights();
    weights.addFloats("x", random.normals(maxRows * width), [maxRows, width]);
    const b = new PlanBuilder(weights, "hidden");
    const table = b.weight("x", maxRows, width);
    const output = b.gatherRows(b.embed(table));
    const plan = b.finishHidden(output, table.rows);
    const rowLists = [[0], [3], [4, 0, 2], random.shuffled(maxRows), random.shuffled(40)];
    const steps = rowLists.map((outputRows) => {
      const count = Math.max(...outputRows) + 1;
      return stepOf(random.shuffled(maxRows).slice(0, count), outputRows);
    });
    checkCase({ what: `gatherRows [${width}]`, plan, weights, output, steps, tolerance: 0 });
  }
});

describe("norm", () => {
  for (const norm of normKinds) {
    for (const width of [1, 3, 16, 63, 64, 65, 100, 576, 1000, 8200]) {
      for (const [hasWeight, hasBias] of [
        [true, false],
        [true, true],
        [false, false],
        [false, true],
      ]) {
        const what = `norm ${norm} [${width}]${hasWeight ? " weight" : ""}${hasBias ? " bias" : ""}`;
        test(what, () => {
          const random = new Random(what);
          const x = random.normals(maxRows * width);
          // Rows of other sizes, and with a mean far from zero.
          for (let row = 0; row < maxRows; row++) {
            const [scale, shift] = [random.of([1, 1, 100, 0.01]), random.of([0, 0, 1, -10])];
            for (let i = row * width; i < (row + 1) * width; i++) x[i] = (x[i]! + shift) * scale;
          }
          using weights = new TestWeights();
          weights.addFloats("x", x, [maxRows, width]);
          weights.addFloats(
            "w",
            random.normals(width, 0.5).map((value) => value + 1),
          );
          // Large enough that a sum of one or few elements does not cancel.
          const biases = random.normals(width).map((value) => value + Math.sign(value) * 4);
          weights.addFloats("b", biases);
          const b = new PlanBuilder(weights, "hidden");
          const table = b.weight("x", maxRows, width);
          const weight = hasWeight ? b.vector("w", width) : undefined;
          const bias = hasBias ? b.vector("b", width) : undefined;
          const output = b.norm(b.embed(table), norm, weight, 1e-5, { bias });
          const plan = b.finishHidden(output, table.rows);
          const steps = (width > 1000 ? [3] : rowCounts).map((count) => plainStep(count));
          checkCase({ what, plan, weights, output, steps, tolerance: normTolerance(norm, width) });
        });
      }
    }
  }
});

/** A layer norm of one or few elements subtracts nearly equal numbers. */
function normTolerance(norm: string, width: number): number {
  return norm === "layer" && width < 16 ? 1e-9 : 1e-11;
}

test("rotations: positions up to a million", () => {
  const random = new Random("rotations");
  for (const count of [1, 4, 13, 32, 40, 64]) {
    const frequencies = Float32Array.from({ length: count }, (_, i) => 10000 ** (-i / count));
    using weights = new TestWeights();
    weights.addFloats("x", random.normals(maxRows), [maxRows, 1]);
    for (const magnitude of [1, 1.1902381]) {
      const b = new PlanBuilder(weights, "hidden");
      const table = b.weight("x", maxRows, 1);
      const output = b.rotations(b.constant("frequencies", frequencies), magnitude);
      const plan = b.finishHidden(output, table.rows);
      const steps = [0, 17, 4095, 131071, 999_930].map((position): TestStep => {
        return { parts: [{ ...plainStep(maxRows).parts[0]!, position }] };
      });
      const what = `rotations ${count} frequencies, magnitude ${magnitude}`;
      checkCase({ what, plan, weights, output, steps, tolerance: 1e-13 });
    }
  }
});
