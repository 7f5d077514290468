// qkvPrep and attentionPaged on every CPU variant against the reference backend, over several
// steps of several sequences; the bits against the canonical definition, and those of all variants,
// of each sequence alone and of any thread count against one another.
import { describe, expect, test } from "bun:test";
import { blockSize, type PlanLimits } from "../../src/plan/arena.ts";
import {
  type AttentionCase,
  attentionCases,
  buildCase,
  canonicalRow,
  describeCase,
  isQuantised,
  limitsOf,
  makeSteps,
  tableRows,
} from "./attention-cases.ts";
import { expectNear, expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, TestExecutor, type TestStep } from "./executor.ts";
import { Random } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

/**
 * f32 sums; bf16 and quantised caches round queries and probabilities to bf16. A rotated key that
 * lies between two halves may be stored as either of them, which moves one score by the spacing of
 * f16; keys as given are stored alike.
 */
function toleranceOf({ kv = ["f32", "f32"], pairing = "none", scale }: AttentionCase): number {
  const [k] = kv;
  if (kv.some((type) => type === "bf16" || isQuantised(type))) return 1e-4;
  if (pairing !== "none" && k === "f16") return 1e-6;
  return scale === 1 ? 1e-10 : 1e-11;
}

/** The reference has no quantised cache; the values of these cases need none. */
function withoutLoss({ kv = ["f32", "f32"] }: AttentionCase, limits: PlanLimits): PlanLimits {
  const [kvTypeK, kvTypeV] = kv.map((type) => (isQuantised(type) ? "f32" : type));
  return { ...limits, kvTypeK: kvTypeK!, kvTypeV: kvTypeV! };
}

for (const c of attentionCases) {
  const what = describeCase(c);
  test(what, () => {
    const random = new Random(what);
    using weights = new TestWeights();
    const { plan, output } = buildCase(c, random, weights);
    const steps = makeSteps(random);
    using reference = new TestExecutor(plan, withoutLoss(c, limitsOf(c)), weights, "reference");
    const expected = steps.map((step) => {
      reference.run(step);
      return reference.read(output);
    });
    let first: Float32Array[] | undefined;
    for (const [index, variant] of cpuVariants.entries()) {
      using cpu = new TestExecutor(plan, limitsOf(c), weights, variant, 1 + index);
      const actual = steps.map((step, i) => {
        cpu.run(step);
        const values = cpu.read(output);
        const where = `${what} step ${i} ${variant}`;
        expectNear(values, expected[i]!, output.width, toleranceOf(c), where);
        return values;
      });
      // Without a causal mask rows see what comes later in their step.
      if (c.causal ?? true)
        checkAlone(c, variant, weights, { plan, output, steps, together: actual });
      first ??= actual;
      actual.forEach((values, i) => {
        expectSameBits(values, first![i]!, output.width, `${what} step ${i} ${variant}`);
      });
    }
  });
}

for (const c of attentionCases.filter(({ pairing = "none" }) => pairing === "none")) {
  const what = `${describeCase(c)}, canonical bits`;
  test(what, () => {
    const random = new Random(what);
    using weights = new TestWeights();
    const built = buildCase(c, random, weights);
    const steps = makeSteps(random);
    for (const variant of cpuVariants) {
      using cpu = new TestExecutor(built.plan, limitsOf(c), weights, variant, 2);
      const sequences: number[][] = [[], [], []];
      steps.forEach((step, i) => {
        cpu.run(step);
        const actual = cpu.read(built.output);
        let row = 0;
        step.parts.forEach(({ tokenIds, start }, p) => {
          // Sequence 2 is missing from the first step alone.
          const tokens = sequences[p]!;
          expect(tokens.length).toBe(start);
          tokens.push(...tokenIds);
          // The last row of every part: each sees all that its sequence has.
          row += tokenIds.length;
          const last = actual.subarray((row - 1) * built.output.width, row * built.output.width);
          const expected = canonicalRow(c, built, tokens);
          expectSameBits(last, expected, built.output.width, `${what} step ${i} ${variant}`);
        });
      });
    }
  });
}

/** Sequence 1 alone, in other blocks, in steps of at most 7 rows: the same bits. */
function checkAlone(
  c: AttentionCase,
  variant: string,
  weights: TestWeights,
  run: Pick<ReturnType<typeof buildCase>, "plan" | "output"> & {
    steps: TestStep[];
    together: Float32Array[];
  },
): void {
  const { plan, output, steps, together } = run;
  using cpu = new TestExecutor(plan, limitsOf(c), weights, variant, 2);
  steps.forEach(({ parts }, i) => {
    const { tokenIds, start, position = start } = parts[1]!;
    const rows: number[] = [];
    for (let first = 0; first < tokenIds.length; first += 7) {
      const count = Math.min(7, tokenIds.length - first);
      const part = {
        tokenIds: tokenIds.slice(first, first + count),
        start: start + first,
        position: position + first,
        blockIds: [9, 3, 12, 0].slice(0, Math.ceil((start + first + count) / blockSize)),
      };
      cpu.run({ parts: [part] });
      rows.push(...cpu.read(output));
    }
    const before = parts[0]!.tokenIds.length * output.width;
    const expected = together[i]!.subarray(before, before + rows.length);
    const where = `${describeCase(c)} step ${i} ${variant}, sequence 1 alone`;
    expectSameBits(Float32Array.from(rows), expected, output.width, where);
  });
}

describe("beyond one chunk of positions", () => {
  const long: readonly AttentionCase[] = [
    { heads: [3, 1], headDim: 16, kv: ["f16", "f16"], pairing: "half_split" },
    { heads: [2, 2], headDim: 8, windowLen: 500 },
    { heads: [4, 1], headDim: 16, valueDim: 8, sinks: true, softcap: 8 },
    { heads: [3, 1], headDim: 32, kv: ["bf16", "bf16"], sinks: true },
    { heads: [2, 2], headDim: 48, valueDim: 16, kv: ["q8_0", "q8_0"], windowLen: 700 },
  ];
  const chunkLen = 150;
  const numChunks = 8;
  const len = chunkLen * numChunks;
  for (const c of long) {
    const what = `${describeCase(c)}, ${len} positions`;
    test(what, () => {
      const random = new Random(what);
      using weights = new TestWeights();
      const built = buildCase(c, random, weights);
      const { plan, output } = built;
      const count = Math.ceil(len / blockSize) + 1;
      const blocks = random.shuffled(count);
      const kv = c.kv ?? (["f32", "f32"] as const);
      const rest = { maxBlocksPerSequence: count, kvTypeK: kv[0], kvTypeV: kv[1] };
      const limits = limitsFor(chunkLen, { ...rest, numBlocks: count });
      const part = (start: number, rows: number) => ({
        tokenIds: Array.from({ length: rows }, (_, i) => (start * 31 + i * 7) % tableRows),
        start,
        blockIds: blocks.slice(0, Math.ceil((start + rows) / blockSize)),
      });
      const steps = Array.from({ length: numChunks }, (_, i) => part(i * chunkLen, chunkLen));
      steps.push(part(len, 1), part(len + 1, 2));
      using reference = new TestExecutor(plan, withoutLoss(c, limits), weights, "reference");
      const expected = steps.map((step) => {
        reference.run({ parts: [step] });
        return reference.read(output);
      });
      const tokenIds = steps.flatMap((step) => step.tokenIds);
      const { pairing = "none" } = c;
      const lastRow = pairing === "none" && canonicalRow(c, built, tokenIds);
      let first: Float32Array[] | undefined;
      for (const variant of cpuVariants) {
        for (const numThreads of [1, 3]) {
          using cpu = new TestExecutor(plan, limits, weights, variant, numThreads);
          const where = (i: number) => `${what} step ${i} ${variant} threads=${numThreads}`;
          const actual = steps.map((step, i) => {
            cpu.run({ parts: [step] });
            const values = cpu.read(output);
            expectNear(values, expected[i]!, output.width, toleranceOf(c), where(i));
            return values;
          });
          first ??= actual;
          actual.forEach((values, i) => {
            expectSameBits(values, first![i]!, output.width, where(i));
          });
          if (!lastRow) continue;
          const row = actual.at(-1)!.subarray(-output.width);
          expectSameBits(row, lastRow, output.width, `${what} last row ${variant}`);
        }
      }
    });
  }
});
