// The ops that change rows value by value or copy parts of them, norms of groups, tables by
// position, and products per head, on every CPU variant against the reference backend.
import { describe, test } from "bun:test";
import { PlanBuilder } from "../../src/plan/builder.ts";
import { gates, type Tensor, unaryFunctions } from "../../src/plan/ops.ts";
import { expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor, type TestStep } from "./executor.ts";
import { checkCase, maxRows, rowCounts } from "./op-case.ts";
import { colsOfType, Random, weightTypes } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

interface Build {
  readonly b: PlanBuilder;
  /** An activation of normal values `[tokens, width]`. */
  readonly input: (name: string, width: number) => Tensor;
  readonly random: Random;
  readonly weights: TestWeights;
}

/** Runs what `build` states on inputs of normal values; `tolerance` is an NMSE, 0 = equal bits. */
function check(
  what: string,
  tolerance: number,
  build: (given: Build) => Tensor,
  steps: readonly TestStep[] = rowCounts.map((count) => plainStep(count)),
): void {
  const random = new Random(what);
  using weights = new TestWeights();
  const b = new PlanBuilder(weights, "hidden");
  const input = (name: string, width: number) => {
    weights.addFloats(name, random.normals(maxRows * width, 3), [maxRows, width]);
    return b.embed(b.weight(name, maxRows, width));
  };
  const output = build({ b, input, random, weights });
  const plan = b.finishHidden(output, maxRows);
  checkCase({ what, plan, weights, output, steps, tolerance });
}

const widths = [7, 16, 100, 9000];
/** Far below zero GELUs are a difference of nearly equal numbers, in the reference too. */
const toleranceOf = (width: number) => (width < 16 ? 1e-8 : 1e-11);

describe("unary", () => {
  for (const name of unaryFunctions) {
    test(name, () => {
      for (const width of widths) {
        check(`unary ${name} [${width}]`, toleranceOf(width), ({ b, input }) => {
          const x = input("x", width);
          b.unary(x, name, 2.5);
          return x;
        });
      }
    });
  }
});

describe("glu", () => {
  for (const gate of gates) {
    test(gate, () => {
      for (const width of widths) {
        for (const gateWidth of gate === "sigmoid" ? [1, width] : [width]) {
          const what = `glu ${gate} [${gateWidth}] [${width}]`;
          check(what, toleranceOf(width), ({ b, input }) => {
            const g = input("gate", gateWidth);
            return b.glu(g, input("up", width), gate);
          });
        }
      }
    });
  }
});

test("add", () => {
  for (const width of [1, ...widths]) {
    for (const scale of [1, -0.22]) {
      check(`add ${scale} [${width}]`, 1e-11, ({ b, input }) => {
        const y = input("y", width);
        b.add(input("x", width), y, scale);
        return y;
      });
    }
  }
});

test("positionScale", () => {
  const steps = [0, 8190, 8191, 500_000].map((position): TestStep => {
    return { parts: [{ ...plainStep(maxRows).parts[0]!, position }] };
  });
  for (const offset of [0, 1]) {
    const build = ({ b, input }: Build) => {
      const x = input("x", 40);
      b.positionScale(x, { interval: 8192, offset, factor: 0.1 });
      return x;
    };
    check(`positionScale offset ${offset}`, 1e-13, build, steps);
  }
});

test("concatHeads", () => {
  for (const [count, wide, narrow] of [
    [1, 5, 3],
    [4, 64, 16],
    [16, 33, 100],
  ] as const) {
    check(`concatHeads ${count} of ${wide} + ${narrow}`, 0, ({ b, input }) => {
      const stride = wide + narrow;
      const x = input("x", count * stride);
      const y = input("y", narrow + 2);
      return b.concatHeads(count, [
        { input: x, width: narrow, start: wide, stride },
        { input: x, width: wide, start: 0, stride },
        { input: y, width: narrow, start: 2, stride: 0 },
      ]);
    });
  }
});

describe("norm of groups", () => {
  for (const kind of ["rms", "layer"] as const) {
    for (const [numGroups, groupWidth] of [
      [3, 64],
      [8, 80],
      [2, 5],
    ] as const) {
      for (const isShared of [true, false]) {
        const width = numGroups * groupWidth;
        const what = `${kind}, ${numGroups} of ${groupWidth}${isShared ? ", shared weights" : ""}`;
        test(what, () => {
          check(what, groupWidth < 16 ? 1e-8 : 1e-10, ({ b, input, random, weights }) => {
            const x = input("x", width);
            const cols = isShared ? groupWidth : width;
            const near1 = random.normals(cols, 0.5).map((value) => value + 1);
            weights.addFloats("w", near1);
            weights.addFloats("b", random.normals(cols));
            const bias = b.vector("b", cols);
            return b.norm(x, kind, b.vector("w", cols), 1e-5, { bias, groupWidth });
          });
        });
      }
    }
  }
});

test("embed: rows by position, and the first", () => {
  const steps = [0, 3, 40].map((position): TestStep => {
    return { parts: [{ ...plainStep(30).parts[0]!, position }] };
  });
  for (const row of ["position", "first"] as const) {
    const build = ({ b, random, weights }: Build) => {
      weights.addFloats("table", random.normals(600 * 48), [600, 48]);
      return b.embed(b.weight("table", 600, 48), 1, row);
    };
    check(`embed ${row}`, 0, build, steps);
  }
});

describe("headLinear", () => {
  for (const type of weightTypes) {
    test(type, () => {
      const cols = colsOfType(type);
      for (const heads of [5, 20]) {
        check(`headLinear ${type} ${heads}`, 1e-3, ({ b, input, random, weights }) => {
          const rows = 37;
          weights.add("w", type, [heads, rows, cols], random.weights(type, heads * rows, cols));
          const w = b.experts("w", (head) => `w.${head}`, [heads, rows, cols]);
          return b.headLinear(input("x", heads * cols), w);
        });
      }
    });
  }

  test("has the bits of a product per head", () => {
    const [heads, rows, cols] = [6, 11, 64];
    for (const type of ["f32", "q8_0"] as const) {
      const random = new Random(`headLinear parts ${type}`);
      using weights = new TestWeights();
      weights.addFloats("x", random.normals(maxRows * heads * cols), [maxRows, heads * cols]);
      const bytes = random.weights(type, heads * rows, cols);
      weights.add("stack", type, [heads, rows, cols], bytes);
      weights.add("matrix", type, [heads * rows, cols], bytes);
      const run = (
        variant: string,
        numTokens: number,
        build: (b: PlanBuilder, x: Tensor) => Tensor,
      ): Float32Array => {
        const b = new PlanBuilder(weights, "hidden");
        const output = build(b, b.embed(b.weight("x", maxRows, heads * cols)));
        const plan = b.finishHidden(output, maxRows);
        using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, variant, 2);
        cpu.run(plainStep(numTokens));
        return cpu.read(output);
      };
      for (const variant of cpuVariants) {
        for (const numTokens of [1, 5, 33]) {
          const all = run(variant, numTokens, (b, x) => {
            return b.headLinear(x, b.experts("stack", String, [heads, rows, cols]));
          });
          for (let head = 0; head < heads; head++) {
            const alone = run(variant, numTokens, (b, x) => {
              const part = { input: x, width: cols, start: head * cols, stride: 0 };
              const matrix = b.weightRows("matrix", [heads * rows, cols], head * rows, rows);
              return b.linear(b.concatHeads(1, [part]), matrix);
            });
            const own = Float32Array.from({ length: numTokens * rows }, (_, i) => {
              return all[Math.floor(i / rows) * heads * rows + head * rows + (i % rows)]!;
            });
            expectSameBits(own, alone, rows, `${type} ${variant}, ${numTokens} rows, head ${head}`);
          }
        }
      }
    }
  });
});
