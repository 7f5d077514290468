// Mixture of experts on every CPU variant: the choice of experts against the reference backend;
// their products bit for bit as the ordinary ops compute them, whatever else is in the step.
import { describe, expect, test } from "bun:test";
import { activate } from "../../src/backend/reference-activations.ts";
import { PlanBuilder } from "../../src/plan/builder.ts";
import { groupScores, type Routing, scorings, type Tensor } from "../../src/plan/ops.ts";
import { type QuantType, quantTypeInfo } from "../../src/weights/quant-types.ts";
import { addBias, canonicalProduct, fused } from "./canonical.ts";
import { expectNear, expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor } from "./executor.ts";
import {
  addExperts,
  addInputs,
  type ExpertCase,
  expertCounts,
  expertOps,
  maxExpertRows as maxRows,
  plainRouting,
  routerLogits,
  type ExpertSizes as Sizes,
} from "./expert-plans.ts";
import { Random, weightTypes } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

test("route: improbable experts that a bias chooses count for less than 1 in all", () => {
  using weights = new TestWeights();
  weights.addFloats("logits", Float32Array.of(20, 0, 1, 0), [1, 4]);
  weights.addFloats("bias", Float32Array.of(-2, 1, 0, 0));
  const b = new PlanBuilder(weights, "hidden");
  const table = b.weight("logits", 1, 4);
  const routing = { ...plainRouting, numExpertsPerToken: 1, selectionBias: b.vector("bias", 4) };
  const chosen = b.route(b.embed(table), routing);
  const plan = b.finishHidden(chosen, table.rows);
  const wanted = Float32Array.of(1, Math.exp(-20) * 2 ** 14);
  for (const variant of ["reference", ...cpuVariants] as const) {
    using executor = new TestExecutor(plan, limitsFor(1), weights, variant);
    executor.run(plainStep(1));
    expectNear(executor.read(chosen), wanted, 2, 1e-12, variant);
    expectNear(executor.read(chosen).subarray(1), wanted.subarray(1), 1, 1e-12, variant);
  }
});

interface RouteCase {
  readonly numExperts: number;
  readonly routing: Omit<Routing, "selectionBias">;
  readonly hasBias: boolean;
}

function routeCases(): RouteCase[] {
  const sizes = [
    { numExperts: 1, numExpertsPerToken: 1, numGroups: 1, numGroupsUsed: 1 },
    { numExperts: 8, numExpertsPerToken: 2, numGroups: 1, numGroupsUsed: 1 },
    { numExperts: 17, numExpertsPerToken: 17, numGroups: 1, numGroupsUsed: 1 },
    { numExperts: 60, numExpertsPerToken: 4, numGroups: 6, numGroupsUsed: 2 },
    { numExperts: 160, numExpertsPerToken: 6, numGroups: 8, numGroupsUsed: 3 },
    { numExperts: 256, numExpertsPerToken: 8, numGroups: 8, numGroupsUsed: 4 },
    { numExperts: 12, numExpertsPerToken: 3, numGroups: 12, numGroupsUsed: 5 },
  ];
  return sizes.flatMap(({ numExperts, ...counts }, index) =>
    scorings.flatMap((scoring) =>
      [false, true].map((hasBias): RouteCase => {
        const groupScore = groupScores[(index + (hasBias ? 1 : 0)) % 2]!;
        const normalise = (index + scoring.length) % 2 === 0;
        const scale = index % 3 === 0 ? 1 : 2.5;
        return {
          numExperts,
          hasBias,
          routing: { ...plainRouting, ...counts, scoring, groupScore, normalise, scale },
        };
      }),
    ),
  );
}

describe("route", () => {
  for (const { numExperts, routing, hasBias } of routeCases()) {
    const { scoring, groupScore, numExpertsPerToken: numSlots } = routing;
    const what = `${scoring} ${numSlots} of ${numExperts}, ${groupScore}, bias ${hasBias}`;
    test(what, () => {
      const random = new Random(what);
      using weights = new TestWeights();
      weights.addFloats("logits", routerLogits(random, numExperts), [maxRows, numExperts]);
      weights.addFloats("bias", random.normals(numExperts, 0.3));
      const b = new PlanBuilder(weights, "hidden");
      const table = b.weight("logits", maxRows, numExperts);
      const selectionBias = hasBias ? b.vector("bias", numExperts) : undefined;
      const chosen = b.route(b.embed(table), { ...routing, selectionBias });
      const plan = b.finishHidden(chosen, table.rows);
      using reference = new TestExecutor(plan, limitsFor(maxRows), weights, "reference");
      reference.run(plainStep(maxRows));
      const expected = split(reference.read(chosen), numSlots);
      let first: Float32Array | undefined;
      for (const [index, variant] of cpuVariants.entries()) {
        using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, variant, 1 + (index % 3));
        cpu.run(plainStep(maxRows));
        const whole = cpu.read(chosen);
        const actual = split(whole, numSlots);
        expect(actual.experts).toEqual(expected.experts);
        // Asked for between two steps, which must not part the counters from the executor.
        expect(countsOf(cpu)).toEqual(countsOf(reference));
        expectNear(actual.weights, expected.weights, numSlots, 1e-12, `${what} ${variant}`);
        first ??= whole;
        expectSameBits(whole, first!, 2 * numSlots, `${what} ${variant}`);
        cpu.run(plainStep(1));
        const choices = countsOf(cpu).reduce((sum, count) => sum + count, 0);
        expect(choices).toBe((maxRows + 1) * numSlots);
        const alone = whole.subarray(0, 2 * numSlots);
        expectSameBits(cpu.read(chosen), alone, 2 * numSlots, `${what} ${variant} alone`);
      }
    });
  }
});

function countsOf({ session }: TestExecutor): number[] {
  return session.expertCounts.of(session.expertCounts.routes[0]!);
}

/** The two halves of routing rows. */
function split(routing: Float32Array, numSlots: number) {
  const half = (isFirst: boolean) =>
    routing.filter((_, i) => (Math.floor(i / numSlots) % 2 === 0) === isFirst);
  return { experts: half(true), weights: half(false) };
}

/** Odd sizes where the type allows them. */
function sizesOf(...types: readonly QuantType[]): Sizes {
  const block = Math.max(...types.map((type) => quantTypeInfo(type).quantBlockSize));
  if (block === 1) return { k: 37, width: 45, n: 33 };
  return block <= 32 ? { k: 96, width: 160, n: 37 } : { k: 512, width: 256, n: 70 };
}

const expertCases = weightTypes.map((type, index): ExpertCase => {
  const other = weightTypes[(index * 5 + 3) % weightTypes.length]!;
  const [numExperts, numSlots] = expertCounts[index % expertCounts.length]!;
  const up = index % 2 === 0 ? type : other;
  return { types: [type, up, type], numExperts, numSlots, hasBias: index % 3 === 1 };
});

/** Experts that lie stacked, beside an ordinary op per expert over all tokens. */
function expertPlan(weights: TestWeights, item: ExpertCase, s: Sizes) {
  const { b, x, numTokens, ...nodes } = expertOps(weights, item, s);
  const plain = Array.from({ length: item.numExperts }, (_, e) => {
    const one = (name: string) => b.weight(`${name}.${e}`, s.width, s.k);
    return b.linearGlu(x, one("gate"), one("up"), "silu");
  });
  return { plan: b.finishHidden(nodes.residual, numTokens), ...nodes, plain };
}

/** Σ over slots of weight * (row · downᵀ + bias), in slot order. */
function combine(
  { types, numExperts, numSlots, hasBias }: ExpertCase,
  weights: TestWeights,
  down: readonly Uint8Array[],
  gated: Float32Array,
  routing: { experts: Float32Array; weights: Float32Array },
  { width, n }: Sizes,
): Float32Array {
  const biases = new Float32Array(weights.content("down.bias").slice().buffer);
  const output = new Float32Array((gated.length / width / numSlots) * n);
  const pairs = Array.from(routing.experts, (expert, pair) => ({ expert, pair }));
  const products: Float32Array[] = [];
  for (let e = 0; e < numExperts; e++) {
    const own = pairs.filter(({ expert }) => expert === e).map(({ pair }) => pair);
    const rows = new Float32Array(own.length * width);
    own.forEach((pair, i) => {
      rows.set(gated.subarray(pair * width, (pair + 1) * width), i * width);
    });
    let y = canonicalProduct(types[2], down[e]!, n, rows, width);
    if (hasBias) y = addBias(y, biases.subarray(e * n, (e + 1) * n));
    own.forEach((pair, i) => {
      products[pair] = y.subarray(i * n, (i + 1) * n);
    });
  }
  products.forEach((product, pair) => {
    const start = Math.floor(pair / numSlots) * n;
    for (let i = 0; i < n; i++) {
      output[start + i] = fused(product[i]!, routing.weights[pair]!, output[start + i]!);
    }
  });
  return output;
}

/** The rows of `tensors`, one tensor per expert over all tokens, that each slot asks for. */
function pickRows(
  cpu: TestExecutor,
  tensors: readonly Tensor[],
  experts: Float32Array,
  numSlots: number,
): Float32Array {
  const width = tensors[0]!.width;
  const all = tensors.map((tensor) => cpu.read(tensor));
  const picked = new Float32Array(experts.length * width);
  experts.forEach((expert, pair) => {
    const start = Math.floor(pair / numSlots) * width;
    picked.set(all[expert]!.subarray(start, start + width), pair * width);
  });
  return picked;
}

/** Biased gate and up by their definition, the activation in f64; `[T, slots, width]`. */
function gatedByDefinition(
  { types }: ExpertCase,
  weights: TestWeights,
  matrices: { gate: readonly Uint8Array[]; up: readonly Uint8Array[] },
  experts: Float32Array,
  numSlots: number,
  { k, width }: Sizes,
): Float32Array {
  const x = new Float32Array(weights.content("x").slice().buffer);
  const biases = (name: string, e: number) =>
    new Float32Array(weights.content(`${name}.bias`).slice().buffer, e * width * 4, width);
  const answers = matrices.gate.map((gate, e) => {
    const g = addBias(canonicalProduct(types[0], gate, width, x, k), biases("gate", e));
    const product = canonicalProduct(types[1], matrices.up[e]!, width, x, k);
    const u = addBias(product, biases("up", e));
    return g.map((value, i) => activate("silu", value) * u[i]!);
  });
  const gated = new Float32Array(experts.length * width);
  experts.forEach((expert, pair) => {
    const start = Math.floor(pair / numSlots) * width;
    gated.set(answers[expert]!.subarray(start, start + width), pair * width);
  });
  return gated;
}

for (const [index, item] of expertCases.entries()) {
  const { types, numExperts, numSlots, hasBias } = item;
  const what = `experts ${types.join(" ")}, ${numSlots} of ${numExperts}, biases ${hasBias}`;
  test(what, () => {
    const random = new Random(what);
    const sizes = sizesOf(...types);
    const { k, width, n } = sizes;
    using weights = new TestWeights();
    addInputs(weights, random, numExperts, sizes);
    const gate = addExperts(weights, random, "gate", types[0], [numExperts, width, k]);
    const up = addExperts(weights, random, "up", types[1], [numExperts, width, k]);
    const down = addExperts(weights, random, "down", types[2], [numExperts, n, width]);
    const nodes = expertPlan(weights, item, sizes);
    const residual = new Float32Array(weights.content("residual").slice().buffer);
    let whole: Float32Array | undefined;
    for (const [i, variant] of cpuVariants.entries()) {
      for (const rows of [maxRows, 33, 9, 5, 2, 1]) {
        const numThreads = 1 + ((index + i + rows) % 3);
        using cpu = new TestExecutor(nodes.plan, limitsFor(rows), weights, variant, numThreads);
        cpu.run(plainStep(rows));
        const where = `${what} rows=${rows} ${variant} threads=${numThreads}`;
        const gated = cpu.read(nodes.gated);
        const routing = split(cpu.read(nodes.routing), numSlots);
        if (!hasBias) {
          const expected = pickRows(cpu, nodes.plain, routing.experts, numSlots);
          expectSameBits(gated, expected, width, `${where}: gated`);
        }
        if (hasBias && whole === undefined) {
          const inputs = [routing.experts, numSlots, sizes] as const;
          const expected = gatedByDefinition(item, weights, { gate, up }, ...inputs);
          expectNear(gated, expected, width, 1e-12, `${where}: gated with biases`);
        }
        whole ??= gated;
        expectSameBits(gated, whole.subarray(0, gated.length), width, `${where}: against all rows`);
        const sums = combine(item, weights, down, gated, routing, sizes);
        expectSameBits(cpu.read(nodes.stored), sums, n, `${where}: stored`);
        const added = sums.map((value, at) => residual[at]! + value);
        expectSameBits(cpu.read(nodes.residual), added, n, `${where}: accumulated`);
      }
    }
  });
}

test("experts that read scaled inputs, and experts with a tensor each, as the reference", () => {
  const sizes = { k: 37, width: 45, n: 33 };
  // BF16 would round inputs that differ in their last bits to values 2^-8 apart.
  const item = { types: ["f32", "f16", "f32"], numExperts: 6, numSlots: 2 } as const;
  const random = new Random("scaled inputs");
  using weights = new TestWeights();
  addInputs(weights, random, item.numExperts, sizes);
  addExperts(weights, random, "gate", item.types[0], [item.numExperts, sizes.width, sizes.k]);
  addExperts(weights, random, "up", item.types[1], [item.numExperts, sizes.width, sizes.k]);
  addExperts(weights, random, "down", item.types[2], [item.numExperts, sizes.n, sizes.width]);
  const b = new PlanBuilder(weights, "hidden");
  const table = b.weight("logits", maxRows, item.numExperts);
  const routing = b.route(b.embed(table), { ...plainRouting, scoring: "sigmoid", scale: 0.5 });
  const scaled = b.scaleSlots(b.embed(b.weight("x", maxRows, sizes.k)), routing);
  const experts = (name: string, rows: number, cols: number) => ({
    weights: b.experts(`no ${name}`, (e) => `${name}.${e}`, [item.numExperts, rows, cols]),
    bias: undefined,
  });
  const gate = experts("gate", sizes.width, sizes.k);
  const up = experts("up", sizes.width, sizes.k);
  const gated = b.expertGlu(scaled, routing, { gate, up }, "gelu_tanh");
  const down = experts("down", sizes.n, sizes.width);
  const output = b.expertLinear(gated, routing, down, { isWeighted: false });
  const plan = b.finishHidden(output, table.rows);
  using reference = new TestExecutor(plan, limitsFor(maxRows), weights, "reference");
  for (const rows of [maxRows, 7, 1]) {
    reference.run(plainStep(rows));
    for (const variant of cpuVariants) {
      using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, variant, 2);
      cpu.run(plainStep(rows));
      const what = `scaled inputs, ${rows} rows, ${variant}`;
      // Large products: the activation is steep there, and its input rounded.
      expectNear(cpu.read(output), reference.read(output), sizes.n, 1e-8, what);
    }
  }
});
