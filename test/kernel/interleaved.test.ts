// Ops that read weights which lie interleaved, all or some of them: the bits of weights in rows,
// which the tests of each op check. linear.test.ts has a lone matrix of every type and size.
import { describe, test } from "bun:test";
import { PlanBuilder } from "../../src/plan/builder.ts";
import { activations } from "../../src/plan/ops.ts";
import type { QuantType } from "../../src/weights/quant-types.ts";
import { checkLayouts, interleavedTypes } from "./layouts.ts";
import { accumulatePlan, gluPlan, maxProductRows, productPlan } from "./product-plans.ts";
import { Random, weightTypes } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

const numTokens = maxProductRows;

describe("outputs of several types and layouts, some with biases", () => {
  // Weights in rows may have any number of rows, and types without the other layout.
  const sizes = [192, 64, 33, 128, 320, 64, 5, 64];
  const k = 512;
  for (let start = 0; start < interleavedTypes.length; start += 2) {
    const what = `several outputs from ${start}`;
    test(what, () => {
      const random = new Random(what);
      using weights = new TestWeights();
      weights.addFloats("x", random.activations(numTokens, k), [numTokens, k]);
      const matrices = sizes.map((n, i) => {
        const types = n % 64 === 0 ? interleavedTypes : weightTypes;
        const type = types[(start + i * 5) % types.length]!;
        const name = `w${i}`;
        weights.add(name, type, [n, k], random.weights(type, n, k), i % 2 ? "start" : "end");
        if (i % 3 === 0) return { name, n };
        weights.addFloats(`b${i}`, random.normals(n));
        return { name, n, bias: `b${i}` };
      });
      const { plan, outputs } = productPlan(weights, k, matrices);
      const turns = [
        ["w0", "w3"],
        ["w1", "w5"],
        ["w4", "w7"],
      ];
      const rowCounts = [1, 2, 4, 5, 11, 31, 64];
      checkLayouts({ what, plan, weights, outputs, numTokens, rowCounts, turns });
    });
  }
});

test("parts of a tensor, of whole panels", () => {
  const [k, rows] = [512, 272];
  for (const type of ["q4_0", "q8_0", "q3_k", "q5_k"] as const) {
    const what = `parts of a tensor of ${type}`;
    const random = new Random(what);
    using weights = new TestWeights();
    weights.addFloats("x", random.activations(numTokens, k), [numTokens, k]);
    weights.add("w", type, [rows, k], random.weights(type, rows, k));
    const b = new PlanBuilder(weights, "hidden");
    const input = b.embed(b.weight("x", numTokens, k));
    const parts = [
      [0, 128],
      [144, 64],
      [208, 64],
    ] as const;
    const outputs = b.linears(
      input,
      parts.map(([first, n]) => ({ weight: b.weightRows("w", [rows, k], first, n) })),
    );
    const plan = b.finishHidden(input, numTokens);
    const rest = { outputs, rowCounts: [1, 2, 5, 64], turns: [["w"]] };
    checkLayouts({ what, plan, weights, numTokens, ...rest });
  }
});

test("accumulate", () => {
  const k = 768;
  for (const [index, type] of interleavedTypes.entries()) {
    const n = [64, 192, 128][index % 3]!;
    const what = `accumulate ${type} n=${n}`;
    const random = new Random(what);
    using weights = new TestWeights();
    weights.addFloats("x", random.activations(numTokens, k), [numTokens, k]);
    weights.addFloats("residual", random.normals(numTokens * n), [numTokens, n]);
    weights.add("w", type, [n, k], random.weights(type, n, k));
    weights.addFloats("b", random.normals(n));
    const { plan, outputs } = accumulatePlan(weights, k, n);
    const rowCounts = [1, 4, 10, 13, 64];
    checkLayouts({ what, plan, weights, outputs, numTokens, rowCounts, turns: [["w"]] });
  }
});

describe("several rows of floats, side by side", () => {
  // Their parts have all sizes; rows of weights are of several chunks, the last one short.
  const [k, sizes] = [4352, [320, 64]];
  for (const type of ["f32", "f16", "bf16"] as const) {
    test(type, () => {
      const what = `${type} side by side`;
      const random = new Random(what);
      using weights = new TestWeights();
      weights.addFloats("x", random.activations(numTokens, k), [numTokens, k]);
      const matrices = sizes.map((n, i) => {
        weights.add(`w${i}`, type, [n, k], random.weights(type, n, k));
        return { name: `w${i}`, n };
      });
      const { plan, outputs } = productPlan(weights, k, matrices);
      const rowCounts = [...Array.from({ length: 32 }, (_, i) => i + 1), 33];
      checkLayouts({ what, plan, weights, outputs, numTokens, rowCounts, turns: [["w0"], ["w1"]] });
    });
  }
});

const otherPairs: readonly (readonly [gate: QuantType, up: QuantType])[] = [
  ["q4_k", "q6_k"],
  ["q8_0", "q4_k"],
  ["q5_1", "iq4_nl"],
  ["q3_k", "mxfp4"],
  ["q4_0", "q4_1"],
  ["q4_0", "f16"],
  ["iq4_xs", "q2_k"],
];

describe("linearGlu", () => {
  const pairs = [...interleavedTypes.map((type) => [type, type] as const), ...otherPairs];
  for (const [index, [gateType, upType]] of pairs.entries()) {
    for (const n of [64, 192]) {
      const what = `${gateType} ${upType} n=${n}`;
      test(what, () => {
        const k = [256, 1280, 768][index % 3]!;
        const random = new Random(what);
        using weights = new TestWeights();
        weights.addFloats("x", random.normals(numTokens * k), [numTokens, k]);
        weights.add("gate", gateType, [n, k], random.weights(gateType, n, k), "start");
        weights.add("up", upType, [n, k], random.weights(upType, n, k));
        weights.addFloats("gateBias", random.normals(n));
        weights.addFloats("upBias", random.normals(n));
        const activation = activations[index % activations.length]!;
        const { plan, outputs } = gluPlan(weights, [k, n], activation, index % 2 === 1);
        const can = (type: QuantType) => interleavedTypes.includes(type);
        const turns = [can(gateType) ? ["gate"] : [], can(upType) ? ["up"] : []];
        if (n === 192) turns.reverse();
        const rowCounts = [1, 3, 5, 13, 40];
        checkLayouts({ what, plan, weights, outputs, numTokens, rowCounts, turns });
      });
    }
  }
});

test("embed, and a product with the table", () => {
  const numRows = 128;
  for (const [index, type] of interleavedTypes.entries()) {
    const k = [256, 768, 512][index % 3]!;
    const what = `embed ${type} [${numRows}, ${k}]`;
    const random = new Random(what);
    using weights = new TestWeights();
    const content = random.weights(type, numRows, k);
    weights.add("table", type, [numRows, k], content, index % 2 ? "start" : "end");
    const b = new PlanBuilder(weights, "hidden");
    const table = b.weight("table", numRows, k);
    const hidden = b.embed(table, index % 2 ? 2.5 : 1);
    const output = b.linear(hidden, table);
    const plan = b.finishHidden(output, numRows);
    const rest = { outputs: [hidden, output], rowCounts: [1, 3, 70, numRows] };
    checkLayouts({ what, plan, weights, numTokens: numRows, turns: [["table"]], ...rest });
  }
});

describe("headLinear", () => {
  for (const type of interleavedTypes) {
    test(type, () => {
      const [heads, rows, cols] = [5, 64, 256];
      const what = `headLinear ${type}`;
      const random = new Random(what);
      using weights = new TestWeights();
      weights.addFloats("x", random.normals(numTokens * heads * cols), [numTokens, heads * cols]);
      weights.add("w", type, [heads, rows, cols], random.weights(type, heads * rows, cols));
      const b = new PlanBuilder(weights, "hidden");
      const x = b.embed(b.weight("x", numTokens, heads * cols));
      const output = b.headLinear(x, b.experts("w", String, [heads, rows, cols]));
      const plan = b.finishHidden(output, numTokens);
      const rest = { outputs: [output], rowCounts: [1, 3, 5, 13, 64] };
      checkLayouts({ what, plan, weights, numTokens, turns: [["w"]], ...rest });
    });
  }
});
