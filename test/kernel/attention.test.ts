// qkvPrep and attentionPaged on every CPU variant against the reference backend, over several
// steps of several sequences whose blocks lie in random order; and the bits of all variants with
// fused multiply-add, of each sequence alone, and of any number of threads against one another.
import { describe, test } from "bun:test";
import { blockSize } from "../../src/plan/arena.ts";
import { PlanBuilder } from "../../src/plan/builder.ts";
import type { KvType, RopePairing } from "../../src/plan/ops.ts";
import { expectNear, expectSameBits } from "./compare.ts";
import {
  cpuVariants,
  hasFma,
  limitsFor,
  type SequencePart,
  TestExecutor,
  type TestStep,
} from "./executor.ts";
import { Random } from "./random.ts";
import { TestWeights } from "./test-weights.ts";

interface Case {
  readonly heads: readonly [numHeads: number, numKvHeads: number];
  readonly headDim: number;
  readonly valueDim?: number;
  readonly pairing?: RopePairing;
  /** Dims of each head that are rotated; all by default. */
  readonly rotaryDim?: number;
  readonly kv?: readonly [k: KvType, v: KvType];
  readonly windowLen?: number;
  readonly softcap?: number;
  readonly sinks?: boolean;
  readonly scale?: number;
}

const cases: readonly Case[] = [
  { heads: [2, 2], headDim: 8 },
  { heads: [3, 1], headDim: 64, pairing: "interleaved" },
  { heads: [8, 2], headDim: 64, pairing: "half_split", kv: ["f16", "f16"] },
  { heads: [8, 1], headDim: 128, pairing: "interleaved", kv: ["bf16", "bf16"] },
  { heads: [4, 4], headDim: 80, pairing: "half_split", rotaryDim: 32 },
  { heads: [6, 2], headDim: 96, pairing: "interleaved", rotaryDim: 64, kv: ["f16", "bf16"] },
  { heads: [4, 1], headDim: 128, valueDim: 64, pairing: "half_split" },
  { heads: [3, 3], headDim: 24, valueDim: 40, pairing: "interleaved", kv: ["f16", "f16"] },
  { heads: [8, 2], headDim: 64, valueDim: 8, windowLen: 16 },
  { heads: [4, 2], headDim: 64, windowLen: 1, pairing: "half_split" },
  { heads: [4, 2], headDim: 64, windowLen: 33, sinks: true, kv: ["f16", "f16"] },
  { heads: [8, 1], headDim: 64, softcap: 5, pairing: "half_split" },
  { heads: [3, 1], headDim: 80, softcap: 20, windowLen: 40, sinks: true, scale: 1 },
  { heads: [2, 1], headDim: 96, sinks: true, pairing: "interleaved" },
  { heads: [4, 1], headDim: 64, kv: ["q8_0", "q8_0"] },
  { heads: [3, 1], headDim: 128, kv: ["q4_0", "q4_0"] },
  { heads: [2, 2], headDim: 80, valueDim: 48, kv: ["q8_0", "q4_0"] },
  { heads: [8, 1], headDim: 96, valueDim: 24, kv: ["q4_0", "q8_0"], windowLen: 35 },
  { heads: [4, 1], headDim: 64, kv: ["f16", "q8_0"], sinks: true },
  { heads: [5, 5], headDim: 8, valueDim: 16, kv: ["q8_0", "f16"] },
];

const describeCase = ({ heads, headDim, valueDim = headDim, ...rest }: Case) =>
  `${heads[0]}/${heads[1]} heads of ${headDim}:${valueDim} ${JSON.stringify(rest)}`;

const isQuantised = (type: KvType) => type === "q8_0" || type === "q4_0";

/** Keys or values `[rows, heads * dim]` that the cache type stores without loss. */
function storable(random: Random, type: KvType, rows: number, heads: number, dim: number) {
  const values = random.normals(rows * heads * dim);
  if (!isQuantised(type)) return values;
  const [low, high] = type === "q8_0" ? [-127, 127] : [-8, 7];
  for (let start = 0; start < values.length; start += dim) {
    for (let group = 0; group < dim; group += 32) {
      const unit = 2 ** -(type === "q8_0" ? 5 + random.below(3) : 1 + random.below(3));
      const count = Math.min(32, dim - group);
      const peak = random.below(count);
      for (let i = 0; i < count; i++) {
        // The largest magnitude decides the scale, so each group has the lowest code.
        const code = i === peak ? low : Math.min(high, low + 1 + random.below(high - low));
        values[start + group + i] = code * unit;
      }
    }
  }
  return values;
}

const tableRows = 150;

/** The ops of one case between embedding tables and the attention's output. */
function buildCase(c: Case, random: Random, weights: TestWeights) {
  const [numHeads, numKvHeads] = c.heads;
  const { headDim, valueDim = headDim, pairing = "none", rotaryDim = headDim } = c;
  const [kType, vType] = c.kv ?? ["f32", "f32"];
  const tables = {
    q: random.normals(tableRows * numHeads * headDim),
    k: storable(random, kType, tableRows, numKvHeads, headDim),
    v: storable(random, vType, tableRows, numKvHeads, valueDim),
  };
  const b = new PlanBuilder(weights, "hidden");
  const tensor = (name: keyof typeof tables) => {
    const width = tables[name].length / tableRows;
    weights.addFloats(name, tables[name], [tableRows, width]);
    return b.embed(b.weight(name, tableRows, width));
  };
  const qkv = { q: tensor("q"), k: tensor("k"), v: tensor("v") };
  weights.addFloats("sinks", random.normals(numHeads, 2));
  const frequencies = Float32Array.from({ length: rotaryDim / 2 }, (_, i) => 0.9 ** i);
  const table = b.constant("frequencies", frequencies);
  const rotations = pairing === "none" ? undefined : b.rotations(table, 1.05);
  const cache = b.cache(numKvHeads, headDim, valueDim);
  b.qkvPrep(qkv, { cache, numHeads, pairing, rotations });
  const { windowLen = 0, softcap = 0, scale = 1 / Math.sqrt(headDim) } = c;
  const sinks = c.sinks ? b.vector("sinks", numHeads) : undefined;
  const spec = { cache, numHeads, scale, windowLen, softcap, sinks };
  const output = b.attentionPaged(qkv.q, spec);
  return { plan: b.finish(output, b.weight("q", tableRows, numHeads * headDim)), output };
}

/** New tokens of each of three sequences, step by step. */
const script = [
  [37, 5, 0],
  [1, 30, 33],
  [1, 1, 1],
  [70, 1, 3],
  [2, 29, 1],
] as const;
const maxTokens = 74;
const numBlocks = 16;
const maxBlocksPerSequence = 5;

/** The script's steps; sequence 1 is at positions far from its place in the cache. */
function makeSteps(random: Random): TestStep[] {
  const blocks = random.shuffled(numBlocks);
  const blockIds = [0, 1, 2].map((s) =>
    blocks.slice(s * maxBlocksPerSequence, (s + 1) * maxBlocksPerSequence),
  );
  const lens = [0, 0, 0];
  return script.map((counts) => {
    const parts: SequencePart[] = [];
    counts.forEach((count, s) => {
      if (count === 0) return;
      const start = lens[s]!;
      lens[s] = start + count;
      const tokenIds = Array.from({ length: count }, () => random.below(tableRows));
      const used = blockIds[s]!.slice(0, Math.ceil(lens[s] / blockSize));
      parts.push({ tokenIds, start, blockIds: used, position: start + (s === 1 ? 90_000 : 0) });
    });
    return { parts };
  });
}

const limitsOf = ({ kv = ["f32", "f32"] }: Case) =>
  limitsFor(maxTokens, {
    ...{ maxSequences: 3, numBlocks, maxBlocksPerSequence, kvTypeK: kv[0], kvTypeV: kv[1] },
  });

/** f32 sums; where halves are stored, a value between two of them may go either way. */
function toleranceOf({ kv = ["f32", "f32"], scale }: Case): number {
  if (kv.includes("f16") || kv.includes("bf16")) return 1e-8;
  return scale === 1 ? 1e-10 : 1e-11;
}

for (const c of cases) {
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
  c: Case,
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
  const long: readonly Case[] = [
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
