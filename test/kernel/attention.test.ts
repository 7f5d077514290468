// qkvPrep and attentionPaged on every CPU variant against the reference backend, over several
// steps of several sequences; and the bits of all variants with fused multiply-add, of each
// sequence alone, and of any number of threads against one another.
import { describe, test } from "bun:test";
import { blockSize } from "../../src/plan/arena.ts";
import type { KvType } from "../../src/plan/ops.ts";
import {
  type AttentionCase,
  attentionCases,
  buildCase,
  describeCase,
  isQuantised,
  limitsOf,
  makeSteps,
  tableRows,
} from "./attention-cases.ts";
import { expectNear, expectSameBits } from "./compare.ts";
import { cpuVariants, hasFma, limitsFor, TestExecutor, type TestStep } from "./executor.ts";
import { Random } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

/**
 * f32 sums. A rotated key that lies between two halves may be stored as either of them, which
 * moves one score by the spacing of f16 or bf16; keys as given are stored alike.
 */
function toleranceOf({ kv: [k] = ["f32", "f32"], pairing = "none", scale }: AttentionCase): number {
  if (pairing !== "none" && k === "f16") return 1e-6;
  if (pairing !== "none" && k === "bf16") return 1e-5;
  return scale === 1 ? 1e-10 : 1e-11;
}

for (const c of attentionCases) {
  const what = describeCase(c);
  test(what, () => {
    const random = new Random(what);
    using weights = new TestWeights();
    const { plan, output } = buildCase(c, random, weights);
    const steps = makeSteps(random);
    // The reference has no quantised cache; these values need none.
    const [k, v] = (c.kv ?? ["f32", "f32"]).map((type) => (isQuantised(type) ? "f32" : type));
    const exactLimits = limitsOf({ ...c, kv: [k as KvType, v as KvType] });
    using reference = new TestExecutor(plan, exactLimits, weights, "reference");
    const expected = steps.map((step) => {
      reference.run(step);
      return reference.read(output);
    });
    let fusedBits: Float32Array[] | undefined;
    for (const [index, variant] of cpuVariants.entries()) {
      using cpu = new TestExecutor(plan, limitsOf(c), weights, variant, 1 + index);
      const actual = steps.map((step, i) => {
        cpu.run(step);
        const values = cpu.read(output);
        const where = `${what} step ${i} ${variant}`;
        expectNear(values, expected[i]!, output.width, toleranceOf(c), where);
        return values;
      });
      checkAlone(c, variant, weights, { plan, output, steps, together: actual });
      if (!hasFma(variant)) continue;
      fusedBits ??= actual;
      actual.forEach((values, i) => {
        expectSameBits(values, fusedBits![i]!, output.width, `${what} step ${i} ${variant}`);
      });
    }
  });
}

/** Sequence 1 alone, in other blocks, in steps of at most 7 rows: the same bits. */
function checkAlone(
  c: AttentionCase,
  variant: string,
  weights: TestWeights,
  run: ReturnType<typeof buildCase> & { steps: TestStep[]; together: Float32Array[] },
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
  ];
  const chunkLen = 150;
  const numChunks = 8;
  const len = chunkLen * numChunks;
  for (const c of long) {
    const what = `${describeCase(c)}, ${len} positions`;
    test(what, () => {
      const random = new Random(what);
      using weights = new TestWeights();
      const { plan, output } = buildCase(c, random, weights);
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
      using reference = new TestExecutor(plan, limits, weights, "reference");
      const expected = steps.map((step) => {
        reference.run({ parts: [step] });
        return reference.read(output);
      });
      let fusedBits: Float32Array[] | undefined;
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
          if (!hasFma(variant)) continue;
          fusedBits ??= actual;
          actual.forEach((values, i) => {
            expectSameBits(values, fusedBits![i]!, output.width, where(i));
          });
        }
      }
    });
  }
});
