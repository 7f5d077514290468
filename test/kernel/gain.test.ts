// Weights with a scale per tensor, as NVFP4 files have: a power of two scales every product's bits,
// whichever op and regime computes it; experts have a scale each.
import { describe, expect, test } from "bun:test";
import type { ExpertStack } from "../../src/plan/adapter-ops.ts";
import { type Plan, PlanBuilder } from "../../src/plan/builder.ts";
import type { Tensor } from "../../src/plan/ops.ts";
import type { QuantType } from "../../src/weights/quant-types.ts";
import { expectNear, expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor } from "./executor.ts";
import { Random } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

const k = 256;
const n = 40;
const numExperts = 3;
/** One row takes the vector kernels, so many the tiles. */
const rowCounts = [1, 3, 70];
const maxRows = Math.max(...rowCounts);

interface Built {
  readonly plan: Plan;
  /** What is compared, and by what each of its `width` values is scaled. */
  readonly outputs: readonly { tensor: Tensor; gainOf: (value: number, row: number) => number }[];
}

const expertGains = Float32Array.of(2, 0.25, 8);

/** All weights, scales beside them where `hasGains`. Token t goes to expert t mod numExperts. */
function addWeights(random: Random, type: QuantType, hasGains: boolean): TestWeights {
  const weights = new TestWeights();
  weights.addFloats("x.weight", random.normals(maxRows * k), [maxRows, k]);
  const logits = Float32Array.from({ length: maxRows * numExperts }, (_, i) => {
    return Math.floor(i / numExperts) % numExperts === i % numExperts ? 9 : 0;
  });
  weights.addFloats("logits.weight", logits, [maxRows, numExperts]);
  weights.addFloats("zero.weight", new Float32Array(maxRows * n), [maxRows, n]);
  for (const name of ["q", "gate", "up", "out"]) {
    weights.add(`${name}.weight`, type, [n, k], random.weights(type, n, k));
  }
  for (const name of ["gates", "ups", "downs"]) {
    const content = random.weights(type, numExperts * n, k);
    weights.add(`${name}.weight`, type, [numExperts, n, k], content);
  }
  if (!hasGains) return weights;
  for (const [name, gain] of [
    ["x", 0.5],
    ["q", 4],
    ["gate", 0.125],
    ["up", 16],
    ["out", 2],
    ["gates", 0.5],
    ["ups", 4],
  ] as const) {
    weights.addFloats(`${name}.scale`, Float32Array.of(gain));
  }
  weights.addFloats("downs.scale", expertGains);
  return weights;
}

function build(weights: TestWeights): Built {
  const b = new PlanBuilder(weights, "hidden");
  const table = b.weight("x.weight", maxRows, k);
  const x = b.embed(table);
  const part = b.weightRows("q.weight", [n, k], 8, 16);
  const q = b.linear(x, part);
  const sum = b.embed(b.weight("zero.weight", maxRows, n));
  b.linearAccumulate(x, b.weight("out.weight", n, k), sum);
  const [gate, up] = [b.weight("gate.weight", n, k), b.weight("up.weight", n, k)];
  const gated = b.linearGlu(x, gate, up, "relu");
  const routing = b.route(b.embed(b.weight("logits.weight", maxRows, numExperts)), {
    ...{ scoring: "softmax", numExpertsPerToken: 1, selectionBias: undefined, normalise: true },
    ...{ numGroups: 1, numGroupsUsed: 1, groupScore: "max", scale: 1 },
  });
  const stack = (name: string) => b.expertParts(`${name}.weight`, [numExperts, 1, n, k], 0);
  const [gates, ups, downs] = ["gates", "ups", "downs"].map((name) => {
    return { weights: stack(name), bias: undefined };
  }) as [ExpertStack, ExpertStack, ExpertStack];
  const gatedByExpert = b.expertGlu(x, routing, { gate: gates, up: ups }, "relu");
  const byExpert = b.expertLinear(x, routing, downs);
  const heads = b.concatHeads(numExperts, [{ input: x, width: k, start: 0, stride: 0 }]);
  const byHead = b.headLinear(heads, stack("downs"));
  // The table's own scale, 1/2, is in all of them.
  const outputs = [
    { tensor: q, gainOf: () => 4 / 2 },
    { tensor: sum, gainOf: () => 2 / 2 },
    { tensor: gated, gainOf: () => (0.125 * 16) / 4 },
    { tensor: gatedByExpert, gainOf: () => (0.5 * 4) / 4 },
    { tensor: byExpert, gainOf: (_: number, row: number) => expertGains[row % numExperts]! / 2 },
    { tensor: byHead, gainOf: (value: number) => expertGains[Math.floor(value / n)]! / 2 },
  ];
  return { plan: b.finishHidden(sum, maxRows), outputs };
}

describe("weights with a scale", () => {
  for (const type of ["f32", "bf16", "q8_0", "q4_k", "nvfp4"] as const) {
    test(type, () => {
      const what = `gain ${type}`;
      using plainWeights = addWeights(new Random(what), type, false);
      using weights = addWeights(new Random(what), type, true);
      const [plain, scaled] = [build(plainWeights), build(weights)];
      for (const variant of ["reference", ...cpuVariants] as const) {
        using without = new TestExecutor(plain.plan, limitsFor(maxRows), plainWeights, variant);
        using executor = new TestExecutor(scaled.plan, limitsFor(maxRows), weights, variant);
        for (const numRows of rowCounts) {
          without.run(plainStep(numRows));
          executor.run(plainStep(numRows));
          scaled.outputs.forEach(({ tensor, gainOf }, index) => {
            const { width } = tensor;
            const base = without.read(plain.outputs[index]!.tensor);
            const wanted = base.map((value, i) => {
              return value * gainOf(i % width, Math.floor(i / width));
            });
            const label = `${what} ${variant}, ${numRows} rows, output ${index}`;
            // The reference has the scale in its F32 matrices: still exact, for powers of two.
            expectSameBits(executor.read(tensor), wanted, width, label);
          });
        }
      }
    });
  }

  test("any other scale is near", () => {
    using weights = addWeights(new Random("any gain"), "f32", false);
    weights.addFloats("q.scale", Float32Array.of(0.3));
    const { plan, outputs } = build(weights);
    using reference = new TestExecutor(plan, limitsFor(maxRows), weights, "reference");
    using cpu = new TestExecutor(plan, limitsFor(maxRows), weights, cpuVariants[0]!);
    reference.run(plainStep(maxRows));
    cpu.run(plainStep(maxRows));
    const { tensor } = outputs[0]!;
    expectNear(cpu.read(tensor), reference.read(tensor), tensor.width, 1e-12, "scale 0.3");
  });

  test("scales of another number than experts are an error", () => {
    using weights = addWeights(new Random("few gains"), "f32", false);
    weights.addFloats("downs.scale", Float32Array.of(1, 2));
    expect(() => build(weights)).toThrow("tensor 'downs.scale' is [2]");
  });
});
