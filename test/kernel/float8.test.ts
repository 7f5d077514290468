// 8-bit float weights with their scales on every CPU variant and on the reference backend: all ops
// that read weights give the bits which they give for the same weights in F32.
import { expect, test } from "bun:test";
import { PlanBuilder } from "../../src/plan/builder.ts";
import type { Tensor } from "../../src/plan/ops.ts";
import { dequantizeRow } from "../../src/weights/dequantize.ts";
import { type Float8Type, float8Types } from "../../src/weights/float8.ts";
import { expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor } from "./executor.ts";
import { Random } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

const maxRows = 40;
/** Either regime with its remainders. */
const rowCounts = [1, 2, 5, 10, 11, maxRows];

/** Rows and columns that share a scale. */
type Block = readonly [rows: number, cols: number];
const whole = 1 << 20;
const blocks: Readonly<Record<string, Block>> = {
  tensor: [whole, whole],
  rows: [1, whole],
  "128 x 128": [128, 128],
  "rows by 128": [1, 128],
  "3 x 16": [3, 16],
  "5 x 48": [5, 48],
};

/** The same weights twice: as 8-bit floats with scales, and in F32. */
interface Twins extends Disposable {
  readonly scaled: TestWeights;
  readonly plain: TestWeights;
}

function twins(): Twins {
  const [scaled, plain] = [new TestWeights(), new TestWeights()];
  const dispose = () => {
    scaled[Symbol.dispose]();
    plain[Symbol.dispose]();
  };
  return { scaled, plain, [Symbol.dispose]: dispose };
}

/** A weight of random codes and scales; its F32 form is made here, value by value. */
function addWeight(
  { scaled, plain }: Twins,
  random: Random,
  name: string,
  type: Float8Type,
  shape: readonly number[],
  block: Block,
): void {
  const cols = shape.at(-1)!;
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const [blockRows, blockCols] = [Math.min(rows, block[0]), Math.min(cols, block[1])];
  const codes = random.weights(type, rows, cols);
  const perRow = Math.ceil(cols / blockCols);
  const count = Math.ceil(rows / blockRows) * perRow;
  const scales = Float32Array.from({ length: count }, () => {
    return random.of([1, -1, 0.1, 3e-5, 0, 700]) * (0.5 + random.uniform());
  });
  scaled.add(name, type, shape, codes);
  scaled.addScales(name, scales, [blockRows, blockCols]);
  const values = new Float32Array(codes.length);
  dequantizeRow(type, codes, values);
  const product = values.map((value, i) => {
    const [row, col] = [Math.floor(i / cols), i % cols];
    return value * scales[Math.floor(row / blockRows) * perRow + Math.floor(col / blockCols)]!;
  });
  plain.addFloats(name, product, shape);
}

function addInput({ scaled, plain }: Twins, random: Random, name: string, width: number): void {
  const values = random.normals(maxRows * width);
  for (const weights of [scaled, plain]) weights.addFloats(name, values, [maxRows, width]);
}

type Build = (b: PlanBuilder) => Tensor;

/** Runs the same plan over both; the reference backend must agree with itself too. */
function compare({ scaled, plain }: Twins, what: string, build: Build): void {
  const planOf = (weights: TestWeights) => {
    const b = new PlanBuilder(weights, "hidden");
    const output = build(b);
    return { plan: b.finishHidden(output, maxRows), output };
  };
  const [own, other] = [planOf(scaled), planOf(plain)];
  expect(own.plan.weights.some(({ scales }) => scales !== undefined)).toBe(true);
  for (const [index, name] of ["reference", ...cpuVariants].entries()) {
    const numThreads = 1 + (index % 3);
    const limits = limitsFor(maxRows);
    using first = new TestExecutor(own.plan, limits, scaled, name, numThreads);
    using second = new TestExecutor(other.plan, limits, plain, name, 1);
    for (const rows of rowCounts) {
      first.run(plainStep(rows));
      second.run(plainStep(rows));
      const [actual, expected] = [first.read(own.output), second.read(other.output)];
      expectSameBits(actual, expected, own.output.width, `${what} rows=${rows} ${name}`);
    }
  }
}

for (const type of float8Types) {
  for (const [kind, block] of Object.entries(blocks)) {
    test(`linear ${type}, scales of ${kind}`, () => {
      for (const [k, n] of [
        [1, 3],
        [31, 37],
        [256, 130],
        [401, 33],
        [2200, 9],
      ] as const) {
        const what = `linear ${type} ${kind} k=${k} n=${n}`;
        const random = new Random(what);
        using pair = twins();
        addInput(pair, random, "x", k);
        addWeight(pair, random, "w", type, [n, k], block);
        compare(pair, what, (b) =>
          b.linear(b.embed(b.weight("x", maxRows, k)), b.weight("w", n, k)),
        );
      }
    });
  }

  test(`parts of a tensor ${type}: their blocks begin where the tensor's do`, () => {
    const k = 160;
    for (const [kind, block] of Object.entries(blocks)) {
      const random = new Random(`parts ${type} ${kind}`);
      using pair = twins();
      addInput(pair, random, "x", k);
      addWeight(pair, random, "w", type, [300, k], block);
      for (const [first, n] of [
        [0, 50],
        [50, 200],
        [250, 50],
      ] as const) {
        compare(pair, `rows ${first} of ${type} ${kind}`, (b) => {
          const x = b.embed(b.weight("x", maxRows, k));
          return b.linear(x, b.weightRows("w", [300, k], first, n));
        });
      }
    }
  });

  test(`embed ${type}`, () => {
    for (const [kind, block] of Object.entries(blocks)) {
      const random = new Random(`embed ${type} ${kind}`);
      using pair = twins();
      addWeight(pair, random, "table", type, [maxRows, 150], block);
      compare(pair, `embed ${type} ${kind}`, (b) => b.embed(b.weight("table", maxRows, 150), 1.5));
    }
  });

  test(`gate and up ${type}`, () => {
    const [k, n] = [272, 70];
    const random = new Random(`glu ${type}`);
    using pair = twins();
    addInput(pair, random, "x", k);
    addWeight(pair, random, "gate", type, [n, k], blocks["128 x 128"]!);
    addWeight(pair, random, "up", type, [n, k], blocks["rows"]!);
    compare(pair, `glu ${type}`, (b) => {
      const x = b.embed(b.weight("x", maxRows, k));
      return b.linearGlu(x, b.weight("gate", n, k), b.weight("up", n, k), "silu");
    });
  });

  test(`a matrix per head ${type}`, () => {
    const [heads, n, k] = [5, 24, 48];
    for (const [kind, block] of Object.entries(blocks)) {
      const random = new Random(`heads ${type} ${kind}`);
      using pair = twins();
      addInput(pair, random, "x", heads * k);
      addWeight(pair, random, "w", type, [heads, n, k], block);
      compare(pair, `heads ${type} ${kind}`, (b) => {
        const x = b.embed(b.weight("x", maxRows, heads * k));
        return b.headLinear(x, b.expertParts("w", [heads, 1, n, k], 0));
      });
    }
  });

  for (const isStacked of [true, false]) {
    test(`experts ${type}, ${isStacked ? "stacked" : "a tensor each"}`, () => {
      for (const [kind, block] of Object.entries(blocks)) {
        const what = `experts ${type} ${kind}`;
        const random = new Random(what);
        const [count, width, k] = [6, 144, 130];
        using pair = twins();
        addInput(pair, random, "x", k);
        addInput(pair, random, "logits", count);
        for (const [name, shape] of [
          ["gate", [width, k]],
          ["up", [width, k]],
          ["down", [k, width]],
        ] as const) {
          if (isStacked) addWeight(pair, random, name, type, [count, ...shape], block);
          else
            for (let e = 0; e < count; e++) addWeight(pair, random, name + e, type, shape, block);
        }
        compare(pair, what, (b) => expertsOf(b, count, width, k));
      }
    });
  }
}

function expertsOf(b: PlanBuilder, count: number, width: number, k: number): Tensor {
  const x = b.embed(b.weight("x", maxRows, k));
  const routing = b.route(b.embed(b.weight("logits", maxRows, count)), {
    ...{ scoring: "softmax", numExpertsPerToken: 2, selectionBias: undefined, normalise: true },
    ...{ numGroups: 1, numGroupsUsed: 1, groupScore: "max", scale: 1 },
  });
  const stack = (name: string, rows: number, cols: number) => {
    const weights = b.experts(name, (e) => `${name}${e}`, [count, rows, cols]);
    return { weights, bias: undefined };
  };
  const matrices = { gate: stack("gate", width, k), up: stack("up", width, k) };
  const gated = b.expertGlu(x, routing, matrices, "silu");
  return b.expertLinear(gated, routing, stack("down", k, width));
}

test("codes that are no numbers stay so", () => {
  for (const [type, code] of [
    ["f8_e4m3", 0x7f],
    ["f8_e4m3", 0xff],
    ["f8_e5m2", 0x7e],
    ["f8_e5m2", 0xfc],
  ] as const) {
    using weights = new TestWeights();
    weights.addFloats("x", new Float32Array(maxRows * 64).fill(1), [maxRows, 64]);
    weights.add("w", type, [2, 64], new Uint8Array(128).fill(0x38).fill(code, 70, 71));
    const b = new PlanBuilder(weights, "hidden");
    const output = b.linear(b.embed(b.weight("x", maxRows, 64)), b.weight("w", 2, 64));
    const plan = b.finishHidden(output, maxRows);
    for (const variant of cpuVariants) {
      using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, variant);
      for (const rows of [1, maxRows]) {
        cpu.run(plainStep(rows));
        const [good, bad] = cpu.read(output);
        expect(Number.isFinite(good)).toBe(true);
        expect(bad).toBe(code === 0xfc ? Number.NEGATIVE_INFINITY : Number.NaN);
      }
    }
  }
});
