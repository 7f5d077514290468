// The native sample op against the reference sampler: vocabularies around its block and slice
// lengths, ties, NaN and infinities, all filters; equal bits on every CPU variant and thread count.
import { expect, test } from "bun:test";
import type { Session } from "../../src/backend/backend.ts";
import { cpuBackend } from "../../src/backend/cpu.ts";
import { cpuReport } from "../../src/native/cpu-report.ts";
import { layoutMemory, type PlanLimits } from "../../src/plan/arena.ts";
import type { Plan } from "../../src/plan/builder.ts";
import type { Tensor } from "../../src/plan/ops.ts";
import { uniform } from "../../src/sampling/philox.ts";
import {
  adjustLogits,
  drawToken,
  keepTokens,
  type ReferenceRow,
  sampleReference,
} from "../../src/sampling/reference.ts";

const maxRows = 5;
const limits: PlanLimits = {
  maxTokens: maxRows,
  maxOutputs: maxRows,
  maxSequences: maxRows,
  numBlocks: maxRows,
  maxBlocksPerSequence: 1,
  kvTypeK: "f16",
  kvTypeV: "f16",
};

/** Choices that depend on `seed` alone. */
class Choices {
  readonly #seed: number;
  #count = 0;
  constructor(seed: number) {
    this.#seed = seed;
  }
  number = () => uniform(this.#seed, 99, this.#count++);
  below = (n: number) => Math.floor(this.number() * n);
  of = <T>(list: readonly T[]): T => list[this.below(list.length)]!;
  normal = () =>
    Math.sqrt(-2 * Math.log(1 - this.number())) * Math.cos(2 * Math.PI * this.number());
}

interface Case {
  readonly vocabSize: number;
  readonly logits: readonly Float32Array[];
  readonly rows: readonly ReferenceRow[];
}

function makeLogits(choices: Choices, vocabSize: number): Float32Array {
  const scale = choices.of([0, 0.01, 1, 3, 10, 100]);
  const oddity = choices.of([
    "none",
    "none",
    "ties",
    "nan",
    "banned",
    "infinite",
    "empty",
    "zeros",
  ]);
  return Float32Array.from({ length: vocabSize }, () => {
    const value = choices.normal() * scale;
    if (oddity === "ties") return Math.round(value);
    if (oddity === "nan" && choices.number() < 0.3) return Number.NaN;
    if (oddity === "banned" && choices.number() < 0.3) return -Infinity;
    if (oddity === "infinite" && choices.number() < 0.001) return Infinity;
    if (oddity === "empty") return choices.of([Number.NaN, -Infinity]);
    return oddity === "zeros" ? choices.of([0, -0]) : value;
  });
}

function makeRow(choices: Choices, vocabSize: number): ReferenceRow {
  const numBiases = choices.number() < 0.4 ? choices.below(30) : 0;
  const numPenalties = choices.number() < 0.5 ? choices.below(100) : 0;
  const idsBelow = Math.min(vocabSize, choices.of([5, 100, vocabSize]));
  return {
    temperature: choices.of([0, 0.1, 0.8, 1, 2, 50]),
    topK: choices.of([0, 0, 1, 2, 7, 40, 400, 5000]),
    topP: choices.of([1, 1, 0, 0.1, 0.5, 0.9, 0.95, 0.999]),
    minP: choices.of([0, 0, 0.05, 0.3, 1, 1e-6]),
    repeatPenalty: choices.of([1, 1, 1.1, 0.7]),
    presencePenalty: choices.of([0, 0, 0.5, -1]),
    frequencyPenalty: choices.of([0, 0, 0.3]),
    seedLow: choices.below(2 ** 32),
    seedHigh: choices.below(2 ** 21),
    drawIndex: choices.below(5000),
    penaltyIds: Int32Array.from({ length: numPenalties }, () => choices.below(idsBelow)),
    logitBias: new Map(
      Array.from({ length: numBiases }, () => [
        choices.below(vocabSize),
        choices.of([-Infinity, 5, -3.3, 100, Infinity, 1e30]),
      ]),
    ),
    numLogprobs: choices.of([0, 1, 5, 20]),
  };
}

const vocabSizes = [1, 2, 15, 16, 17, 127, 128, 129, 512, 4095, 4096, 4097, 9001, 32000];

function makeCases(seed: number): Case[] {
  const choices = new Choices(seed);
  return vocabSizes.flatMap((vocabSize) =>
    Array.from({ length: 4 }, () => {
      const numRows = 1 + choices.below(maxRows);
      const each = <T>(make: () => T) => Array.from({ length: numRows }, make);
      const logits = each(() => makeLogits(choices, vocabSize));
      return { vocabSize, logits, rows: each(() => makeRow(choices, vocabSize)) };
    }),
  );
}

interface Sampler extends Disposable {
  readonly session: Session;
  readonly logits: Tensor;
}

function load(vocabSize: number, cpuVariant: string | undefined, numThreads: number): Sampler {
  const logits: Tensor = { id: 0, width: vocabSize, rows: "outputs" };
  const plan: Plan = {
    ops: [{ kind: "sample", logits }],
    tensors: [logits],
    weights: [],
    caches: [],
    hidden: logits,
    scores: undefined,
    logits,
    vocabSize,
    products: [],
  };
  const weights = { address: () => 0, bytes: () => 0, isInterleaved: () => false };
  const options = { limits, weights, numThreads, cpuVariant, cancelWord: undefined };
  const session = cpuBackend.load(plan, layoutMemory(plan, limits), options);
  return { session, logits, [Symbol.dispose]: () => session[Symbol.dispose]() };
}

const bytesOf = (floats: Float32Array) =>
  Buffer.from(floats.buffer, floats.byteOffset, floats.byteLength);

/** Runs the rows in one step and returns what it chose. */
function sample({ session, logits }: Sampler, testCase: Case, rows = testCase.rows.keys()) {
  const data = session.stepData;
  const order = [...rows];
  data.reset();
  data.setCounts(order.length, order.length, order.length);
  const all = session.readTensor(logits);
  const width = testCase.vocabSize;
  for (const [at, index] of order.entries()) {
    const row = testCase.rows[index]!;
    const ids = Int32Array.from(row.penaltyIds);
    data.setSampling(at, row, row.drawIndex, ids, 0, ids.length, row.logitBias);
    all.set(testCase.logits[index]!, at * width);
    data.outputRows[at] = at;
    data.queryStarts[at + 1] = at + 1;
    data.kvLens[at] = 1;
    data.blockTables[at] = at;
  }
  const before = all.slice();
  session.run();
  expect(bytesOf(all).equals(bytesOf(before))).toBe(true); // raw logits are as they were
  return order.map((_, at) => ({
    tokenId: data.sampledId(at),
    logprob: data.sampledLogprob(at),
    topIds: Array.from({ length: 20 }, (_, rank) => data.topId(at, rank)),
    topLogprobs: Array.from({ length: 20 }, (_, rank) => data.topLogprob(at, rank)),
  }));
}

type Sampled = ReturnType<typeof sample>[number];

function expectNear(actual: number, expected: number): void {
  if (Object.is(actual, expected)) return;
  expect(Math.abs(actual - expected)).toBeLessThanOrEqual(1e-6 * Math.max(1, Math.abs(expected)));
}

/** Tokens that the reference may choose when sums differ by single-precision rounding. */
function nearbyTokens(logits: Float32Array, row: ReferenceRow): Set<number> {
  const adjusted = adjustLogits(logits, row).map((x) =>
    Number.isNaN(x) ? -Infinity : Math.min(x, 3.4028234663852886e38),
  );
  const random = uniform(row.seedLow, row.seedHigh, row.drawIndex);
  const tokens = new Set<number>();
  for (const shift of [-5e-7, 0, 5e-7]) {
    const topP = row.topP < 1 ? row.topP * (1 + shift) : 1;
    const kept = keepTokens(adjusted, { ...row, topP });
    for (const other of [-5e-7, 0, 5e-7]) {
      tokens.add(drawToken(adjusted, kept, row.temperature, Math.max(0, random + other)));
    }
  }
  return tokens;
}

/** True when the choice itself is equal, not only within rounding. */
function expectAgreement(actual: Sampled, logits: Float32Array, row: ReferenceRow): boolean {
  const expected = sampleReference(logits, row);
  for (let rank = 0; rank < 20; rank++) {
    const best = expected.top[rank] ?? { tokenId: -1, logprob: -Infinity };
    expect(actual.topIds[rank]).toBe(best.tokenId);
    expectNear(actual.topLogprobs[rank]!, best.logprob);
  }
  if (actual.tokenId === expected.tokenId) {
    expectNear(actual.logprob, expected.logprob);
    return true;
  }
  expect(row.temperature).toBeGreaterThan(0);
  expect(nearbyTokens(logits, row)).toContain(actual.tokenId);
  return false;
}

test("native sampling agrees with the reference", () => {
  const seed = Number(process.env["TINFER_TEST_SEED"] ?? 20_000);
  let numRows = 0;
  let numEqual = 0;
  for (const testCase of makeCases(seed)) {
    using sampler = load(testCase.vocabSize, undefined, 2);
    for (const [index, actual] of sample(sampler, testCase).entries()) {
      numRows++;
      if (expectAgreement(actual, testCase.logits[index]!, testCase.rows[index]!)) numEqual++;
    }
  }
  expect(numEqual / numRows).toBeGreaterThan(0.99);
});

test("every CPU variant, thread count and batch gives the same bits", () => {
  const cases = makeCases(7).filter(({ vocabSize }) => vocabSize >= 127);
  for (const testCase of cases) {
    using best = load(testCase.vocabSize, undefined, 1);
    const together = sample(best, testCase);
    const alone = testCase.rows.map((_, index) => sample(best, testCase, [index].values())[0]!);
    expect(alone).toEqual(together);
    for (const variant of cpuReport().variants) {
      using other = load(testCase.vocabSize, variant, 3);
      expect(sample(other, testCase)).toEqual(together);
    }
  }
});
