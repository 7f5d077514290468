// The roofline report of real runs: its ceiling is never below what was measured, its ops add up to
// the wall time, and every CPU variant measures its own limits.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BenchmarkRecord, benchmark } from "../../src/engine/benchmark.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { RooflineRecorder } from "../../src/engine/roofline-recorder.ts";
import { randomModel } from "../../src/models/shapes.ts";
import { catchInterrupts, clearInterrupt, isInterrupted } from "../../src/native/interrupt.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { cpuVariants } from "./executor.ts";
import { tinyMixes, tinyModel } from "./tiny-model.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-roofline-"));
  writeGguf(join(folder, "small.gguf"), randomModel("smollm-135m", "q8_0"));
  writeGguf(join(folder, "tiny.gguf"), tinyModel("roofline", tinyMixes["blocks"]!));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Between steps TypeScript has its turn: little beside a step of a model of any use. */
const mostBetweenSteps = 0.03;

for (const [file, hasLongSteps] of [
  ["small.gguf", true],
  ["tiny.gguf", false],
] as const) {
  test(`${file}: the ceiling holds and the ops add up`, () => {
    // Long enough that one interruption by another program is little of a run.
    const tests = [
      { kind: "prompt", numTokens: 256, depth: 0, batch: 1 },
      { kind: "generate", numTokens: 48, depth: 40, batch: 1 },
      { kind: "generate", numTokens: 32, depth: 0, batch: 3 },
    ] as const;
    const options = { model: defaultModelOptions, repetitions: 3, roofline: true };
    for (const record of benchmark(join(folder, file), file, tests, options)) {
      const { ceilingTokensPerSecond, rows, share, limits } = record.roofline!;
      expect(ceilingTokensPerSecond).toBeGreaterThanOrEqual(record.tokensPerSecond);
      expect(record.roofline!.measuredTokensPerSecond).toBeCloseTo(record.tokensPerSecond, 6);
      expect(share).toBeLessThanOrEqual(1);
      expect(share).toBeGreaterThan(0);
      expect(limits.readBytesPerSecond).toBeGreaterThan(0);
      const ms = rows.reduce((sum, row) => sum + row.ms, 0);
      const between = rows.find((row) => row.name === "between steps")!;
      if (hasLongSteps) expect(between.ms / ms).toBeLessThan(mostBetweenSteps);
      expect(rows.find((row) => row.name === "head")!.readBytes).toBeGreaterThan(0);
      expect(rows.every((row) => Number.isFinite(row.ceilingMs))).toBe(true);
    }
  });
}

test.skipIf(process.platform === "win32")("measuring limits ends at an interrupt", () => {
  const options = { ...defaultModelOptions, contextLen: 64 };
  using model = new LoadedModel(join(folder, "tiny.gguf"), options, { outputs: "tokens" });
  new RooflineRecorder(model)[Symbol.dispose]();
  process.once("SIGINT", () => {});
  catchInterrupts();
  using _ = { [Symbol.dispose]: clearInterrupt };
  process.kill(process.pid, "SIGINT");
  while (!isInterrupted()) Bun.sleepSync(1);
  expect(() => new RooflineRecorder(model)).toThrow("interrupted");
});

test("the memory that a roofline takes is not counted as the model's", () => {
  const file = join(folder, "small.gguf");
  const [plain, recorded] = [[], ["--roofline"]].map((flags) => {
    const main = join(import.meta.dir, "..", "..", "src", "main.ts");
    const settings = ["-p", "0", "-n", "4", "-r", "1", "--json", ...flags];
    const { stdout } = Bun.spawnSync([process.execPath, main, "bench", file, ...settings]);
    const [record] = JSON.parse(stdout.toString()) as BenchmarkRecord[];
    return record!;
  });
  // It takes as much again as the weights.
  expect(Math.abs(recorded!.peakRssBytes - plain!.peakRssBytes)).toBeLessThan(plain!.bytes / 2);
});

for (const cpuVariant of cpuVariants) {
  test(`${cpuVariant}: limits of one thread and of several`, () => {
    const options = { ...defaultModelOptions, cpuVariant, numThreads: 3 };
    using model = new LoadedModel(join(folder, "tiny.gguf"), options);
    const { session, file, plan } = model;
    const { name } = plan.weights.find(({ constant }) => constant === undefined)!;
    for (const numThreads of [1, 3]) {
      for (const kind of ["int8", "f32"] as const) {
        expect(session.probe({ kind, numThreads }).mean).toBeGreaterThan(1e8);
      }
      const hasBrain = session.probe({ kind: "bf16", numThreads }).best > 0;
      expect(hasBrain).toBe(cpuVariant === "v4");
      for (const streams of [1, 4] as const) {
        const memory = { address: file.address(name), bytes: file.bytes(name) };
        const pattern = { kind: "read", numThreads, streams, prefetchBytes: 512 } as const;
        const { best, mean } = session.probe({ ...pattern, ...memory });
        expect(mean).toBeGreaterThan(1e7);
        expect(best).toBeGreaterThanOrEqual(mean);
        expect(session.probe({ ...pattern, ...memory, bytes: 0 })).toEqual({ best: 0, mean: 0 });
      }
    }
    expect(() => session.probe({ kind: "int8", numThreads: 4 })).toThrow("4 threads");
  });
}
