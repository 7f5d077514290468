// The cost model and the report, with made-up times and limits: bytes and operations as counted by
// hand, ceilings that no run beats, shares, groups and advice.
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OpTimes } from "../../src/backend/op-times.ts";
import type { MachineLimits } from "../../src/engine/machine-limits.ts";
import { longestRun } from "../../src/engine/machine-limits.ts";
import { ModelFile } from "../../src/engine/model-file.ts";
import { costOf, groupNames, type StepShape } from "../../src/engine/op-cost.ts";
import { type MeasuredTest, makeRoofline } from "../../src/engine/roofline.ts";
import { type AdviceFacts, adviseOn } from "../../src/engine/roofline-advice.ts";
import type { Plan } from "../../src/plan/builder.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { tinyMixes, tinyModel } from "../kernel/tiny-model.ts";

function tinyPlan(): Plan {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-roofline-"));
  try {
    const path = join(folder, "tiny.gguf");
    writeGguf(path, tinyModel("roofline", tinyMixes["k-mix"]!));
    using file = new ModelFile(path);
    return file.buildPlan("tokens", { slidingWindow: "auto", contextLen: 512 });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const plan = tinyPlan();
const kvTypes = { kvTypeK: "f16", kvTypeV: "f16" } as const;
const names = groupNames(plan);
const opNamed = (name: string) => plan.ops[names.indexOf(name)]!;
const prompt: StepShape = { numSequences: 2, numTokens: 3, start: 10, numOutputs: 1 };

const limits: MachineLimits = {
  ...{ readBytesPerSecond: 1e9, weightsBytesPerSecond: 1e9, hugePagesBytesPerSecond: 1e9 },
  ...{ oneThreadBytesPerSecond: 5e8, activationBytesPerSecond: 1e10 },
  peaks: { int8: 1e12, bf16: 0, f32: 1e11 },
  oneThreadPeaks: { int8: 5e11, bf16: 0, f32: 5e10 },
};

describe("cost of an op", () => {
  test("products read their weights once and compute with every row", () => {
    // down: q5_k [256, 512] for the last layer's output rows, token rows before.
    const down = costOf(opNamed("down"), prompt, kvTypes);
    expect(down.weightBytes).toBe(256 * 2 * 176);
    expect(down.operations).toEqual({ int8: 2 * 6 * 256 * 512, bf16: 0, f32: 0 });
    const head = costOf(opNamed("head"), prompt, kvTypes);
    expect(head.operations.int8).toBe(2 * 2 * 300 * 256);
    const none = costOf(opNamed("head"), { ...prompt, numOutputs: 0 }, kvTypes);
    expect(none).toEqual({
      ...{ weightBytes: 0, kvBytes: 0, activationBytes: 0 },
      operations: { int8: 0, bf16: 0, f32: 0 },
    });
  });

  test("attention sees what is before a row, and its window at most", () => {
    const op = opNamed("attention");
    if (op.kind !== "attentionPaged") throw new Error("not attention");
    const { kvBytes, operations } = costOf(op, prompt, kvTypes);
    // 13 positions, 2 KV heads, K and V of 64 halves each, two sequences.
    expect(kvBytes).toBe(13 * 2 * 2 * 64 * 2 * 2);
    expect(operations).toEqual({ int8: 0, bf16: 0, f32: 2 * (11 + 12 + 13) * 4 * 128 * 2 });
    const mixed = costOf(op, prompt, { kvTypeK: "q8_0", kvTypeV: "f32" });
    expect(mixed.operations.bf16).toBe(operations.f32 / 2);
    expect(mixed.operations.f32).toBe(operations.f32 / 2);
    const windowed = costOf({ ...op, windowLen: 4 }, prompt, kvTypes);
    expect(windowed.kvBytes).toBe((kvBytes / 13) * 6);
    expect(windowed.operations.f32).toBe(2 * 12 * 4 * 128 * 2);
  });

  test("experts are read as far as tokens choose them", () => {
    const weight = { id: 0, name: "experts", rows: 64, cols: 256, typeId: 8, gain: 1 };
    const tensor = (width: number) => ({ id: 0, rows: "tokens", width }) as const;
    const op = {
      ...({ kind: "expertLinear", epilogue: "store", isWeighted: true, bias: undefined } as const),
      ...{ input: tensor(512), routing: tensor(4), output: tensor(64) },
      weights: Array.from({ length: 8 }, () => weight),
    };
    const one = { numSequences: 1, numTokens: 1, start: 0, numOutputs: 1 };
    const decode = costOf(op, one, kvTypes);
    expect(decode.weightBytes).toBeCloseTo(2 * 64 * 8 * 34, 6);
    expect(decode.operations.int8).toBe(2 * 2 * 64 * 256);
    const many = costOf(op, { ...one, numTokens: 500 }, kvTypes);
    expect(many.weightBytes).toBeCloseTo(8 * 64 * 8 * 34, 6);
    expect(many.operations.int8).toBe(500 * decode.operations.int8);
  });

  test("every op has a group", () => {
    const wanted = ["embed", "qkv", "rope, cache", "attention", "attention out", "gate/up", "down"];
    for (const name of [...wanted, "head", "sample"]) expect(names).toContain(name);
    expect(names.filter((name) => name === "qkv").length).toBe(2);
    expect(names).not.toContain("linear");
  });
});

/** Ops that took `factor` times their ceiling, half of it waiting. */
function measured(factor: number, wallFactor = 1): MeasuredTest {
  const times = new OpTimes(plan.ops.length, 1);
  const steps = [prompt];
  const ceiling = makeRoofline(base(times, steps, 1e9), limits, () => []);
  const ceilingMs = (1e12 / ceiling.ceilingTokensPerSecond / 1e9) * 6;
  for (let op = 0; op < plan.ops.length; op++) {
    times.add(op, (ceilingMs * factor) / plan.ops.length);
  }
  return base(times, steps, ceilingMs * factor * wallFactor);
}

function base(times: OpTimes, steps: readonly StepShape[], ms: number): MeasuredTest {
  const runs = [{ ms, readBytesPerSecond: limits.readBytesPerSecond / 2 }];
  return { plan, kvTypes, steps, times, runs, numTokens: 6 };
}

describe("report", () => {
  test("rows add up to the time, the rest stands apart", () => {
    const { rows, raisedBy } = makeRoofline(measured(4, 1.25), limits, () => []);
    const sum = rows.reduce((total, row) => total + row.ms, 0);
    const last = rows.at(-1)!;
    expect(raisedBy).toBe(1);
    expect(last.name).toBe("between steps");
    expect(last.ms / sum).toBeCloseTo(0.2, 3);
  });

  test("a run at half of the limits reaches 50 %", () => {
    const report = makeRoofline(measured(2), limits, () => []);
    expect(report.share).toBeCloseTo(0.5, 3);
    // Half of the bandwidth was there right then, and nearly all of it is reading.
    expect(report.shareBeside).toBeGreaterThan(0.95);
    expect(report.shareBeside).toBeLessThan(1.001);
    expect(report.ceilingTokensPerSecond / report.measuredTokensPerSecond).toBeCloseTo(2, 3);
    expect(report.boundBy).toBe("read bandwidth 50 %");
  });

  test("a run that beats the probes raises the limits, never the share above 1", () => {
    const report = makeRoofline(measured(0.5), limits, () => []);
    expect(report.raisedBy).toBeCloseTo(2, 3);
    expect(report.limits.readBytesPerSecond).toBeCloseTo(2e9, -6);
    expect(report.ceilingTokensPerSecond).toBeGreaterThanOrEqual(report.measuredTokensPerSecond);
    expect(report.share).toBeCloseTo(1, 6);
  });
});

test("advice follows from the figures", () => {
  const facts: AdviceFacts = {
    ...{ mainType: "f16", weightBytes: 2e9, parameters: 1e9, numThreads: 2, defaultThreads: 4 },
    ...{ kvType: "f16", batch: 1, generates: true },
  };
  const report = makeRoofline(measured(2), limits, () => []);
  const advice = adviseOn(report, facts);
  expect(advice.length).toBeLessThanOrEqual(2);
  expect(advice.join("\n")).toContain("q4_k_m with 4.85 would raise the ceiling");
  const slow = { ...report, limits: { ...limits, oneThreadBytesPerSecond: 0.95e9 } };
  expect(adviseOn(slow, facts)[0]).toContain("one thread reads 95 % of what 2 do");
  const small = adviseOn(report, { ...facts, mainType: "q4_k", weightBytes: 0.6e9 });
  expect(small.join("\n")).not.toContain("weight type");
});

test("the longest run joins neighbours and ignores what lies far away", () => {
  const piece = (address: number, bytes: number) => ({ address, bytes });
  const pieces = [piece(1e6 + 1000, 50), piece(1e6, 1000), piece(9e9, 900), piece(1e6, 1000)];
  expect(longestRun(pieces)).toEqual({ address: 1e6, bytes: 1050 });
});
