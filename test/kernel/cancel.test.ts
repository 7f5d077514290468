// A step ends on its way when its request is cancelled from another thread, and leaves nothing
// behind: the next step gives the same bits.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EngineClient } from "../../src/engine/client.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { startEngineWorker } from "../../src/engine/worker.ts";
import { cancelAll, makeCancelWord, noteRunning, stopStep } from "../../src/native/interrupt.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { expectSameBits } from "./compare.ts";
import { fillStep, plainStep } from "./executor.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

let folder = "";
let path = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cancel-"));
  path = join(folder, "floats.gguf");
  writeGguf(path, tinyModel("floats", tinyMixes["floats"]!));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

for (const numThreads of [1, 2, 3]) {
  test(`the cancel word stops the steps it names, ${numThreads} threads`, () => {
    const cancelWord = makeCancelWord();
    const options = { ...defaultModelOptions, contextLen: 64, numThreads, maxOutputsPerStep: 64 };
    using model = new LoadedModel(path, options, { cancelWord });
    const run = (cancelId: number, word: number) => {
      fillStep(model.session.stepData, plainStep(40));
      model.session.stepData.setCancelId(cancelId);
      cancelWord[0] = word;
      return model.session.run();
    };
    const logits = () => Float32Array.from(model.session.readTensor(model.plan.logits!));
    expect(run(7, 0)).toBe(true);
    const expected = logits();
    expect(run(7, 7)).toBe(false);
    expect(run(7, 8)).toBe(true);
    expect(run(0, 8)).toBe(true);
    expect(run(0, cancelAll)).toBe(false);
    expect(run(7, cancelAll)).toBe(false);
    expect(run(8, 7)).toBe(true);
    expectSameBits(logits(), expected, tinyVocabSize, "after cancelled steps");
  });
}

test("a request that ends does not take back the stop of the step that runs", () => {
  const word = makeCancelWord();
  stopStep(word, 3);
  expect(word[0]).toBe(3);
  noteRunning(word, 7);
  stopStep(word, 7);
  stopStep(word, 8);
  expect(word[0]).toBe(7);
  noteRunning(word, 8);
  stopStep(word, 9);
  stopStep(word, 8);
  expect(word[0]).toBe(8);
  noteRunning(word, 0);
  stopStep(word, 9);
  expect(word[0]).toBe(9);
});

const promptLen = 2000;
const options = { ...defaultModelOptions, contextLen: 2048, maxTokensPerStep: 2048, numThreads: 1 };

/** Runs a prompt that is one step; how it ended, and how long after `cancelAfterMs` that was. */
async function runPrompt(client: EngineClient, firstId: number, cancelAfterMs: number | undefined) {
  const promptTokenIds = Int32Array.from(
    { length: promptLen },
    (_, i) => (firstId + i * 7) % tinyVocabSize,
  );
  const controller = new AbortController();
  const start = performance.now();
  let cancelledAt = start;
  if (cancelAfterMs !== undefined) {
    setTimeout(() => {
      cancelledAt = performance.now();
      controller.abort();
    }, cancelAfterMs);
  }
  const request = { promptTokenIds, maxTokens: 1, sampling: defaultSampling, stopTokenIds: [] };
  for await (const event of client.generate(request, controller.signal)) {
    if (event.kind !== "end") continue;
    return { reason: event.reason, ms: performance.now() - cancelledAt };
  }
  throw new Error("no end");
}

test("a client that leaves ends a long prompt's step on its way; others go on", async () => {
  await using client = await startEngineWorker(path, options);
  await runPrompt(client, 0, undefined);
  // Measured in turn: a machine that is busy for a moment must not fail this.
  const ratios: number[] = [];
  for (let round = 1; round <= 10; round++) {
    const whole = await runPrompt(client, 2 * round, undefined);
    expect(whole.reason).toBe("length");
    const cancelled = await runPrompt(client, 2 * round + 1, whole.ms / 5);
    if (cancelled.reason === "cancelled") ratios.push(cancelled.ms / whole.ms);
    if (ratios.some((ratio) => ratio < 0.4)) return;
  }
  throw new Error(`time to the end after the cancellation, of a whole step: ${ratios.join(", ")}`);
});
