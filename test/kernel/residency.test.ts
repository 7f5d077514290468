// Where weights lie, mapped or copied, whole or in part, changes no bit and may change between any
// two steps; the memory taken is the memory planned; a step takes none.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { planModel } from "../../src/engine/model-plan.ts";
import { defaultModelOptions, type ModelOptions } from "../../src/engine/options.ts";
import { StepDriver } from "../../src/engine/step-driver.ts";
import { allocationCount } from "../../src/native/memory.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { expectSameBits } from "./compare.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

let folder = "";
let path = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-residency-"));
  path = join(folder, "k-mix.gguf");
  writeGguf(path, tinyModel("k-mix", tinyMixes["k-mix"]!));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const contextLen = 96;
const options: ModelOptions = { ...defaultModelOptions, contextLen, numThreads: 2 };
const tokenIds = Array.from({ length: contextLen }, (_, i) => (i * 7919 + 13) % tinyVocabSize);

function open(load: ModelOptions["load"]) {
  const model = new LoadedModel(path, { ...options, load, maxOutputsPerStep: 64 });
  const driver = new StepDriver(model.session, contextLen);
  return {
    model,
    logits(start: number, count: number): Float32Array {
      driver.run(tokenIds, start, count, "all");
      return Float32Array.from(model.session.readTensor(model.plan.logits!));
    },
    [Symbol.dispose]: () => model[Symbol.dispose](),
  };
}

const fileBytes = () => readFileSync(path).length;

test("lazy, auto and eager give the same bits; eager alone takes memory for weights", () => {
  using lazy = open("lazy");
  using auto = open("auto");
  using eager = open("eager");
  const expected = lazy.logits(0, 40);
  expectSameBits(auto.logits(0, 40), expected, tinyVocabSize, "auto");
  expectSameBits(eager.logits(0, 40), expected, tinyVocabSize, "eager");
  expect([lazy, auto].map(({ model }) => model.file.copiedBytes)).toEqual([0, 0]);
  const { copiedBytes, weightBytes } = eager.model.file;
  expect(copiedBytes).toBe(eager.model.file.copyBytes);
  expect(copiedBytes).toBeGreaterThanOrEqual(weightBytes);
  expect(copiedBytes).toBeLessThan(fileBytes() + 2 ** 17);
});

test("weights move between any two steps, in parts, and back", () => {
  using fixed = open("lazy");
  using moving = open("lazy");
  const file = moving.model.file;
  // Tiles and single rows, so that every kernel reads the moved weights.
  const steps: [number, number][] = [
    [0, 40],
    ...Array.from({ length: 12 }, () => [40, 1] as [number, number]),
  ];
  const expected = steps.map(([start, count]) => fixed.logits(start, count));
  const check = (what: string) => {
    for (const [index, [start, count]] of steps.slice(0, 2).entries()) {
      expectSameBits(moving.logits(start, count), expected[index]!, tinyVocabSize, what);
    }
  };
  for (let round = 0; round < 2; round++) {
    const addresses = new Set<number>();
    let parts = 0;
    for (const { doneBytes } of moving.model.bringInAs("eager", 100_000)) {
      check(`after ${doneBytes} bytes`);
      addresses.add(file.address("output.weight"));
      parts++;
    }
    expect(parts).toBeGreaterThan(5);
    expect(addresses.size).toBe(2);
    moving.model.dropCopies();
    expect(file.copiedBytes).toBe(0);
    check("back in the file");
  }
});

test("a copy that was left half done is gone on with", () => {
  using model = new LoadedModel(path, { ...options, load: "lazy" });
  for (const _ of model.bringInAs("eager", 100_000)) break;
  const taken = model.file.copiedBytes;
  expect(taken).toBeGreaterThan(0);
  for (const _ of model.bringInAs("eager"));
  expect(model.file.copiedBytes).toBe(taken);
  expect([...model.bringInAs("eager")]).toEqual([]);
});

test("arena, KV pool and scratch are taken as planned, to the byte", () => {
  const wishes: Partial<ModelOptions>[] = [
    {},
    { numThreads: 1, contextLen: 33 },
    { maxSequences: 3, kvTypeK: "q8_0", kvTypeV: "q4_0", maxTokensPerStep: 7 },
    { load: "eager", maxOutputsPerStep: 64 },
  ];
  for (const wish of wishes) {
    using model = new LoadedModel(path, { ...options, ...wish });
    const { memoryPlan } = planModel(model.file, "tokens", { ...options, ...wish, load: "lazy" });
    expect(model.session.memory).toEqual(memoryPlan.memory);
    for (const bytes of Object.values(memoryPlan.memory)) expect(bytes % 4096).toBe(0);
  }
});

test("steps allocate nothing", () => {
  using model = new LoadedModel(path, { ...options, numThreads: 3, maxSequences: 2 });
  const driver = new StepDriver(model.session, contextLen);
  const before = allocationCount();
  expect(before).toBeGreaterThan(0);
  driver.run(tokenIds, 0, 40, "last", 2);
  for (let start = 40; start < contextLen; start++) driver.run(tokenIds, start, 1, "last", 2);
  expect(allocationCount()).toBe(before);
  using _ = new LoadedModel(path, options);
  expect(allocationCount()).toBeGreaterThan(before);
});

/** Resident memory of this process; Linux says it exactly. */
function residentBytes(): number {
  const pages = readFileSync("/proc/self/statm", "utf8").split(" ")[1];
  return Number(pages) * 4096;
}

test.skipIf(process.platform !== "linux")("the KV pool is resident as far as it is used", () => {
  const longContext = 2 ** 18;
  const large: ModelOptions = { ...options, contextLen: longContext, load: "lazy" };
  using model = new LoadedModel(path, large);
  const { kvBytes } = model.session.memory;
  expect(kvBytes).toBe(2 ** 28);
  const driver = new StepDriver(model.session, longContext);
  driver.run(tokenIds, 0, 1, "last");
  const before = residentBytes();
  for (let start = 1; start < contextLen; start++) driver.run(tokenIds, start, 1, "last");
  expect(residentBytes() - before).toBeLessThan(2 ** 24);
});
