// Matrix products on every CPU variant: the bits that the canonical order defines, for every weight
// type, odd sizes and all regimes; and the order itself against the reference backend.
import { describe, expect, test } from "bun:test";
import { activate } from "../../src/backend/reference-activations.ts";
import { activations } from "../../src/plan/ops.ts";
import { type QuantType, quantTypeInfo } from "../../src/weights/quant-types.ts";
import { activationGroup, addBias, canonicalProduct } from "./canonical.ts";
import { expectNear, expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor } from "./executor.ts";
import { interleavedTypes } from "./layouts.ts";
import {
  accumulatePlan,
  gluPlan,
  maxProductRows as maxRows,
  productPlan,
  productRowCounts as rowCounts,
} from "./product-plans.ts";
import { Random, weightTypes } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

/** What 8-bit activations may add; a wrong weight adds a thousand times as much. */
const activationNoise = 3e-4;

type Size = readonly [k: number, n: number];
type SizesByGroup = Readonly<Record<number, readonly Size[]>>;
const sizesByGroup: SizesByGroup = {
  1: [
    [1, 3],
    [17, 5],
    [31, 33],
    [100, 37],
    [513, 40],
    [1100, 32],
  ],
  32: [
    [32, 1],
    [64, 33],
    [96, 5],
    [160, 37],
    [544, 70],
    [1056, 32],
  ],
  256: [
    [256, 1],
    [512, 33],
    [768, 37],
    [1280, 70],
  ],
};
/** Of matrices that lie interleaved. */
const interleavedSizes: SizesByGroup = {
  1: [
    [128, 64],
    [384, 192],
    [640, 128],
    [4352, 64],
  ],
  32: [
    [32, 64],
    [96, 192],
    [544, 128],
    [160, 320],
  ],
  256: [
    [256, 64],
    [768, 192],
    [1280, 128],
    [512, 320],
  ],
};

interface Shape {
  readonly k: number;
  readonly n: number;
  readonly isInterleaved: boolean;
}
function shapesOf(type: QuantType): Shape[] {
  const { quantBlockSize } = quantTypeInfo(type);
  const group = activationGroup(type);
  const shapes = (sizes: SizesByGroup, isInterleaved: boolean) =>
    // Rows are whole quant blocks, which are longer than a group in some types.
    sizes[group]!.map(([k, n]): Shape => {
      return { k: Math.ceil(k / quantBlockSize) * quantBlockSize, n, isInterleaved };
    });
  const inRows = shapes(sizesByGroup, false);
  if (!interleavedTypes.includes(type)) return inRows;
  return [...inRows, ...shapes(interleavedSizes, true)];
}

const firstRows = (values: Float32Array, rows: number, width: number) =>
  values.subarray(0, rows * width);

for (const type of weightTypes) {
  describe(`linear ${type}`, () => {
    shapesOf(type).forEach(({ k, n, isInterleaved }, index) => {
      const size = `k=${k} n=${n}${isInterleaved ? " interleaved" : ""}`;
      const what = `linear ${type} ${size}`;
      const random = new Random(what);
      const x = random.activations(maxRows, k);
      const matrix = random.weights(type, n, k);
      const expected = canonicalProduct(type, matrix, n, x, k);
      const withWeights = (against: "start" | "end") => {
        const weights = new TestWeights();
        weights.addFloats("x", x, [maxRows, k]);
        weights.add("w", type, [n, k], matrix, against);
        if (isInterleaved) weights.interleave("w");
        return weights;
      };

      if (!isInterleaved)
        test(`${size}: the order against the reference`, () => {
          using weights = withWeights("end");
          const { plan, outputs } = productPlan(weights, k, [{ name: "w", n }]);
          using reference = new TestExecutor(plan, limitsFor(maxRows), weights, "reference");
          reference.run(plainStep(maxRows));
          const exact = reference.read(outputs[0]!);
          const isFloat = quantTypeInfo(type).quantBlockSize === 1;
          let [error, power] = [0, 0];
          expected.forEach((value, i) => {
            const row = Math.floor(i / n);
            const size = Math.max(...x.subarray(row * k, (row + 1) * k).map(Math.abs)) || 1;
            // Rows too small for 8 bits are zero by definition.
            if (!isFloat && size < 1e-29) return;
            error += ((value - exact[i]!) / size) ** 2;
            power += (exact[i]! / size) ** 2;
          });
          expect(error / (power || 1)).toBeLessThan(isFloat ? 1e-12 : activationNoise);
        });

      for (const variant of cpuVariants) {
        test(`${size} ${variant}`, () => {
          using weights = withWeights(index % 2 === 0 ? "end" : "start");
          const { plan, outputs } = productPlan(weights, k, [{ name: "w", n }]);
          for (const most of [1, 10, maxRows]) {
            const numThreads = 1 + ((index + most) % 3);
            using cpu = new TestExecutor(plan, limitsFor(most), weights, variant, numThreads);
            for (const rows of rowCounts.filter((count) => count <= most)) {
              cpu.run(plainStep(rows));
              const where = `${what} rows=${rows} ${variant} threads=${numThreads}`;
              expectSameBits(cpu.read(outputs[0]!), firstRows(expected, rows, n), n, where);
            }
          }
        });
      }
    });
  });
}

/** More rows than one pass of tiles takes, more columns than one unit takes, and rows of floats of
 * which tiles take 8, 2 or 1 of 16 strands at a time. */
const largeCases: readonly (Omit<Shape, "isInterleaved"> & {
  readonly type: QuantType;
  readonly rows: number;
  readonly isInterleaved?: boolean;
})[] = [
  { type: "q4_0", k: 64, n: 40, rows: 1100 },
  { type: "q6_k", k: 256, n: 33, rows: 519 },
  { type: "f16", k: 48, n: 35, rows: 523 },
  { type: "bf16", k: 1130, n: 34, rows: 101 },
  { type: "bf16", k: 4250, n: 33, rows: 10 },
  { type: "f16", k: 2105, n: 5, rows: 13 },
  { type: "f16", k: 2105, n: 5, rows: 40 },
  { type: "f16", k: 2176, n: 64, rows: 40, isInterleaved: true },
  { type: "bf16", k: 17000, n: 5, rows: 40 },
  { type: "f32", k: 32800, n: 3, rows: 40 },
  { type: "q4_k", k: 256, n: 4300, rows: 3 },
  { type: "q5_1", k: 32, n: 4201, rows: 9 },
  { type: "f32", k: 8, n: 4300, rows: 4 },
];

test("linear: long and wide", () => {
  for (const { type, k, n, rows, isInterleaved } of largeCases) {
    const what = `linear ${type} k=${k} n=${n} rows=${rows}`;
    const random = new Random(what);
    const x = random.activations(rows, k);
    const matrix = random.weights(type, n, k);
    using weights = new TestWeights();
    weights.addFloats("x", x, [rows, k]);
    weights.add("w", type, [n, k], matrix);
    if (isInterleaved) weights.interleave("w");
    const { plan, outputs } = productPlan(weights, k, [{ name: "w", n }]);
    const expected = canonicalProduct(type, matrix, n, x, k);
    for (const variant of cpuVariants) {
      using cpu = new TestExecutor(plan, limitsFor(rows), weights, variant, 2);
      cpu.run(plainStep(rows));
      expectSameBits(cpu.read(outputs[0]!), expected, n, `${what} ${variant}`);
    }
  }
});

test("linear: outputs of several types, some with biases", () => {
  const k = 512;
  const sizes = [33, 5, 17, 64, 1, 40, 8, 100];
  for (const start of [0, 3, 6, 9]) {
    const what = `several outputs from ${start}`;
    const random = new Random(what);
    const x = random.activations(maxRows, k);
    using weights = new TestWeights();
    weights.addFloats("x", x, [maxRows, k]);
    const matrices = sizes.map((n, i) => {
      const type = weightTypes[(start + i * 2) % weightTypes.length]!;
      const content = random.weights(type, n, k);
      weights.add(`w${i}`, type, [n, k], content);
      if (i % 3 === 0) return { name: `w${i}`, type, n, content, biases: undefined };
      const biases = random.normals(n);
      weights.addFloats(`b${i}`, biases);
      return { name: `w${i}`, type, n, content, biases, bias: `b${i}` };
    });
    const { plan, outputs } = productPlan(weights, k, matrices);
    const expected = matrices.map(({ type, content, n, biases }) => {
      const y = canonicalProduct(type, content, n, x, k);
      return biases === undefined ? y : addBias(y, biases);
    });
    for (const variant of cpuVariants) {
      using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, variant, 2);
      for (const rows of [1, 2, 5, 10, 11, 64]) {
        cpu.run(plainStep(rows));
        matrices.forEach(({ n, type }, i) => {
          const where = `${what} ${type} n=${n} rows=${rows} ${variant}`;
          expectSameBits(cpu.read(outputs[i]!), firstRows(expected[i]!, rows, n), n, where);
        });
      }
    }
  }
});

for (const type of ["f32", "bf16", "q4_0", "q5_1", "q8_0", "q2_k", "q4_k"] as const) {
  test(`linear ${type}: accumulate`, () => {
    const [k, n] = [768, 45];
    const random = new Random(`accumulate ${type}`);
    const [x, residual] = [random.activations(maxRows, k), random.normals(maxRows * n)];
    const [matrix, biases] = [random.weights(type, n, k), random.normals(n)];
    using weights = new TestWeights();
    weights.addFloats("x", x, [maxRows, k]);
    weights.addFloats("residual", residual, [maxRows, n]);
    weights.add("w", type, [n, k], matrix);
    weights.addFloats("b", biases);
    const { plan, outputs } = accumulatePlan(weights, k, n);
    const y = addBias(canonicalProduct(type, matrix, n, x, k), biases);
    const expected = y.map((value, i) => residual[i]! + value);
    for (const variant of cpuVariants) {
      using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, variant, 3);
      for (const rows of [1, 4, 10, 12, 64]) {
        cpu.run(plainStep(rows));
        const where = `accumulate ${type} rows=${rows} ${variant}`;
        expectSameBits(cpu.read(outputs[0]!), firstRows(expected, rows, n), n, where);
      }
    }
  });
}

/** Gate and up are exact; the activation is within the accuracy of its exponential. */
const gluNmse = 1e-12;
const gluCases: readonly (readonly [gate: QuantType, up: QuantType])[] = [
  ["f32", "f32"],
  ["f16", "bf16"],
  ["q4_0", "q4_0"],
  ["q8_0", "q4_k"],
  ["q4_k", "q6_k"],
  ["q3_k", "f16"],
];

for (const activation of activations) {
  test(`linearGlu ${activation}`, () => {
    gluCases.forEach(([gateType, upType], index) => {
      const what = `linearGlu ${activation} ${gateType} ${upType}`;
      const [k, n] = [512, 37 + index];
      const random = new Random(what);
      const x = random.normals(maxRows * k);
      const gate = random.weights(gateType, n, k);
      const up = random.weights(upType, n, k);
      const [gateBias, upBias] = [random.normals(n), random.normals(n)];
      const hasBias = index % 2 === 1;
      using weights = new TestWeights();
      weights.addFloats("x", x, [maxRows, k]);
      weights.add("gate", gateType, [n, k], gate);
      weights.add("up", upType, [n, k], up);
      weights.addFloats("gateBias", gateBias);
      weights.addFloats("upBias", upBias);
      // Both products by their definition; the activation then in f64.
      const g = canonicalProduct(gateType, gate, n, x, k);
      const u = canonicalProduct(upType, up, n, x, k);
      const gated = hasBias ? addBias(g, gateBias) : g;
      const factors = hasBias ? addBias(u, upBias) : u;
      const expected = gated.map((value, i) => activate(activation, value) * factors[i]!);
      const { plan, outputs } = gluPlan(weights, [k, n], activation, hasBias);
      let whole: Float32Array | undefined;
      for (const variant of cpuVariants) {
        using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, variant, 2);
        for (const rows of [64, 13, 10, 2, 1]) {
          cpu.run(plainStep(rows));
          const actual = cpu.read(outputs[0]!);
          whole ??= actual;
          const where = `${what} rows=${rows} ${variant}`;
          expectNear(actual, firstRows(expected, rows, n), n, gluNmse, where);
          expectSameBits(
            actual,
            firstRows(whole, rows, n),
            n,
            `${where} against all rows of the first variant`,
          );
        }
      }
    });
  });
}
