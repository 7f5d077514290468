// Products that normalise their input: the bits of the norm op followed by the product, for every
// weight type and regime; and which norms the plan builder moves into products.
import { describe, expect, test } from "bun:test";
import { PlanBuilder } from "../../src/plan/builder.ts";
import { normKinds, type Tensor } from "../../src/plan/ops.ts";
import type { QuantType } from "../../src/weights/quant-types.ts";
import { expectNear, expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor } from "./executor.ts";
import { Random, weightTypes } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

const [k, n, maxRows] = [512, 37, 64];
const rowCounts = [1, 2, 5, 8, 9, 33, 64];
/** What 8-bit activations may add to one row; a norm left out adds a hundred times as much. */
const activationNoise = 3e-3;

function makeWeights(random: Random, matrices: readonly QuantType[]): TestWeights {
  const weights = new TestWeights();
  weights.addFloats("x", random.normals(maxRows * k, 3), [maxRows, k]);
  weights.addFloats(
    "scale",
    random.normals(k, 0.5).map((value) => value + 1),
  );
  weights.addFloats("shift", random.normals(k));
  weights.addFloats("back", random.normals(k * n), [k, n]);
  matrices.forEach((type, i) => {
    weights.add(`w${i}`, type, [n, k], random.weights(type, n, k));
  });
  return weights;
}

type Products = (b: PlanBuilder, input: Tensor) => readonly Tensor[];

/** norm, then products: apart when the normalised rows are a result of the plan, else fused. */
function build(weights: TestWeights, norm: (typeof normKinds)[number], products: Products) {
  return ["apart", "fused"].map((how) => {
    const b = new PlanBuilder(weights, "hidden");
    const table = b.weight("x", maxRows, k);
    const bias = norm === "layer" ? b.vector("shift", k) : undefined;
    const normed = b.norm(b.embed(table), norm, b.vector("scale", k), 1e-5, { bias });
    const outputs = products(b, normed);
    return { plan: b.finishHidden(how === "apart" ? normed : outputs[0]!, table.rows), outputs };
  }) as [Built, Built];
}
type Built = { plan: ReturnType<PlanBuilder["finish"]>; outputs: readonly Tensor[] };

function checkProducts(
  weights: TestWeights,
  norm: (typeof normKinds)[number],
  what: string,
  products: Products,
): void {
  const [apart, fused] = build(weights, norm, products);
  expect(apart.plan.ops.filter((op) => op.kind === "norm")).toHaveLength(1);
  expect(fused.plan.ops.filter((op) => op.kind === "norm")).toHaveLength(0);
  using reference = new TestExecutor(fused.plan, limitsFor(maxRows), weights, "reference");
  reference.run(plainStep(maxRows));
  for (const variant of cpuVariants) {
    for (const [most, numThreads] of [
      [1, 2],
      [8, 3],
      [maxRows, 2],
    ] as const) {
      using first = new TestExecutor(apart.plan, limitsFor(most), weights, variant);
      using second = new TestExecutor(fused.plan, limitsFor(most), weights, variant, numThreads);
      for (const rows of rowCounts.filter((count) => count <= most)) {
        first.run(plainStep(rows));
        second.run(plainStep(rows));
        fused.outputs.forEach((output, i) => {
          const where = `${what} output ${i} rows=${rows} ${variant} threads=${numThreads}`;
          const actual = second.read(output);
          expectSameBits(actual, first.read(apart.outputs[i]!), output.width, where);
          const exact = reference.read(output).subarray(0, actual.length);
          expectNear(actual, exact, output.width, activationNoise, where);
        });
      }
    }
  }
}

for (const type of weightTypes) {
  test(`normalised linear ${type}`, () => {
    const random = new Random(`normalised linear ${type}`);
    for (const norm of normKinds) {
      // Beside a float matrix the normalised rows are needed as they are, too.
      for (const types of [[type], ["f16", type]] as const) {
        using weights = makeWeights(random, types);
        checkProducts(weights, norm, `${norm} ${types}`, (b, input) =>
          b.linears(
            input,
            types.map((_, i) => ({ weight: b.weight(`w${i}`, n, k) })),
          ),
        );
      }
    }
  });
}

test("normalised linearGlu", () => {
  const random = new Random("normalised linearGlu");
  for (const types of [
    ["q4_0", "q4_0"],
    ["q4_k", "q8_0"],
    ["f32", "q6_k"],
  ] as const) {
    using weights = makeWeights(random, types);
    checkProducts(weights, "rms", `glu ${types}`, (b, input) => [
      b.linearGlu(input, b.weight("w0", n, k), b.weight("w1", n, k), "silu"),
    ]);
  }
});

describe("norms that stay apart", () => {
  const weights = makeWeights(new Random("norms that stay"), ["f32"]);
  const kinds = (make: (b: PlanBuilder, x: Tensor) => Tensor) => {
    const b = new PlanBuilder(weights, "hidden");
    const table = b.weight("x", maxRows, k);
    const { ops, tensors } = b.finishHidden(make(b, b.embed(table)), table.rows);
    expect(tensors.map((tensor) => tensor.id)).toEqual(tensors.map((_, i) => i));
    return ops.map((op) => op.kind);
  };
  const normed = (b: PlanBuilder, x: Tensor) => b.norm(x, "rms", b.vector("scale", k), 1e-5);
  const matrix = (b: PlanBuilder) => b.weight("w0", n, k);

  test("one reader: fused", () => {
    expect(kinds((b, x) => b.linear(normed(b, x), matrix(b)))).toEqual(["embed", "linear"]);
  });
  test("two readers", () => {
    const found = kinds((b, x) => {
      const y = normed(b, x);
      b.linear(y, matrix(b));
      return b.linear(y, matrix(b));
    });
    expect(found).toEqual(["embed", "norm", "linear", "linear"]);
  });
  test("a reader that is no product", () => {
    const found = kinds((b, x) => b.gatherRows(normed(b, x)));
    expect(found).toEqual(["embed", "norm", "gatherRows"]);
  });
  test("the norm's input changes before the product reads", () => {
    const found = kinds((b, x) => {
      const y = normed(b, x);
      b.linearAccumulate(b.linear(x, matrix(b)), b.weight("back", k, n), x);
      return b.linear(y, matrix(b));
    });
    expect(found).toEqual(["embed", "norm", "linear", "linear", "linear"]);
  });
});
