// Tuning a loaded model: it takes about a second, is found again, changes no bit of a result, and
// an engine does it only after its first answer, giving way to requests.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Engine } from "../../src/engine/engine.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { StepDriver } from "../../src/engine/step-driver.ts";
import { listTunings } from "../../src/engine/tuning-file.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { expectSameBits } from "./compare.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

let home = "";
let path = "";
let before: string | undefined;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "tinfer-tuning-"));
  before = process.env["TINFER_HOME"];
  process.env["TINFER_HOME"] = home;
  path = join(home, "tiny.gguf");
  writeGguf(path, tinyModel("tuning", tinyMixes["k-mix"]!));
});
afterAll(() => {
  if (before === undefined) delete process.env["TINFER_HOME"];
  else process.env["TINFER_HOME"] = before;
  rmSync(home, { recursive: true });
});

const options = { ...defaultModelOptions, backend: "cpu", numThreads: 2, contextLen: 64 };
const tokens = Int32Array.from({ length: 20 }, (_, i) => (i * 7) % tinyVocabSize);

function logitsOf(model: LoadedModel): Float32Array {
  const driver = new StepDriver(model.session, 64);
  driver.run(tokens, 0, tokens.length, "last");
  return Float32Array.from(model.session.readTensor(model.plan.logits!));
}

test("found once, kept, and without effect on results", () => {
  using untuned = new LoadedModel(path, options);
  expect(untuned.lacksTuning).toBe(false);
  const expected = logitsOf(untuned);

  using first = new LoadedModel(path, { ...options, tuning: true });
  expect(first.lacksTuning).toBe(true);
  const start = performance.now();
  for (const _ of first.findTuning());
  expect(performance.now() - start).toBeLessThan(10_000);
  expect(first.lacksTuning).toBe(false);
  expectSameBits(logitsOf(first), expected, tinyVocabSize, "tuned");
  expect(listTunings().map(({ isOurs }) => isOurs)).toEqual([true]);

  using second = new LoadedModel(path, { ...options, tuning: true });
  expect(second.lacksTuning).toBe(false);
  expectSameBits(logitsOf(second), expected, tinyVocabSize, "tuned by the file");
});

test("an engine tunes after its first answer, and requests in between are served", async () => {
  const numThreads = 1;
  const engine = new Engine(path, { ...options, numThreads, tuning: true });
  const answer = async () => {
    const request = {
      ...{ promptTokenIds: tokens, sampling: { ...defaultSampling, temperature: 0 } },
      ...{ maxTokens: 3, stopTokenIds: [] },
    };
    let numTokens = 0;
    for await (const event of engine.generate(request)) if (event.kind === "token") numTokens++;
    return numTokens;
  };
  const isTuned = () => listTunings().some(({ content }) => content?.key.numThreads === numThreads);
  try {
    await Bun.sleep(50);
    expect(isTuned()).toBe(false);
    expect(await answer()).toBe(3);
    for (let i = 0; i < 200 && !isTuned(); i++) {
      if (i === 15) expect(await answer()).toBe(3);
      await Bun.sleep(100);
    }
    expect(isTuned()).toBe(true);
    expect(await answer()).toBe(3);
  } finally {
    await engine[Symbol.asyncDispose]();
  }
}, 60_000);
