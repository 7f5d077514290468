// Op times: nothing of a step is left out, nothing counted twice, and asking changes no result.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OpTimes } from "../../src/backend/op-times.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { StepDriver } from "../../src/engine/step-driver.ts";
import { randomModel } from "../../src/models/shapes.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { expectSameBits } from "./compare.ts";

let folder = "";
let path = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-times-"));
  path = join(folder, "model.gguf");
  writeGguf(path, randomModel("smollm-135m", "q8_0"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const tokens = Int32Array.from({ length: 64 }, (_, i) => (i * 31) % 1000);

for (const numThreads of [1, 2, 3]) {
  test(`${numThreads} threads: ops add up to the step`, () => {
    const options = { ...defaultModelOptions, backend: "cpu", numThreads, contextLen: 512 };
    using model = new LoadedModel(path, options);
    const { session, plan } = model;
    const driver = new StepDriver(session, 512);
    const logits = () => Float32Array.from(session.readTensor(plan.logits!));
    driver.run(tokens, 0, tokens.length, "last");
    const untimed = logits();

    const times = new OpTimes(plan.ops.length, numThreads);
    let bestShare = 0;
    for (let i = 0; i < 8; i++) {
      times.clear();
      session.recordOpTimes(times);
      const start = performance.now();
      driver.run(tokens, 0, tokens.length, "last");
      const wallMs = performance.now() - start;
      const sumMs = plan.ops.reduce((sum, _, op) => sum + times.wallMs(op), 0);
      expect(sumMs).toBeLessThanOrEqual(wallMs);
      bestShare = Math.max(bestShare, sumMs / wallMs);
      for (let op = 0; op < plan.ops.length; op++) {
        expect(times.wallMs(op)).toBeGreaterThan(0);
        expect(times.waitingShare(op)).toBeLessThanOrEqual(1);
      }
    }
    expect(bestShare).toBeGreaterThan(0.97);
    expectSameBits(logits(), untimed, plan.vocabSize, "timed");

    // Times are added up until somebody clears them, and stay when nobody asks any more.
    const before = times.wallMs(3);
    driver.run(tokens, 0, tokens.length, "last");
    expect(times.wallMs(3)).toBeGreaterThan(before);
    session.recordOpTimes(undefined);
    const after = times.words.slice();
    driver.run(tokens, 0, tokens.length, "last");
    expect(times.words).toEqual(after);
  });
}
