// Where weights lie, mapped or copied, whole or in part, changes no bit and may change between any
// two steps; the memory taken is the memory planned; a step takes none. How copies lie is tested in
// interleaved-copies.test.ts.
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import type { EngineClient } from "../../src/engine/client.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { rangePages } from "../../src/engine/machine.ts";
import { ModelFile } from "../../src/engine/model-file.ts";
import { planModel, rowTables } from "../../src/engine/model-plan.ts";
import { defaultModelOptions, type ModelOptions } from "../../src/engine/options.ts";
import { StepDriver } from "../../src/engine/step-driver.ts";
import { startEngineWorker } from "../../src/engine/worker.ts";
import { allocationCount, MemoryRegion, viewMemory } from "../../src/native/memory.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
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

/** Bytes of the file that are mapped into this process; its mapping begins at a huge page. */
function mappedBytes(file: ModelFile, fileBytes: number): number {
  const start = Math.floor(file.address("extra") / 2 ** 21) * 2 ** 21;
  return rangePages(start, fileBytes).resident;
}

/** The tiny model with a large tensor more, and without those that are left out. */
function writeVariant(name: string, extraBytes: number, leftOut: string, mix = "k-mix"): string {
  const { metadata, tensors } = tinyModel(mix, tinyMixes[mix]!);
  const shape = [extraBytes / 4096, 1024];
  const content = new Uint8Array(extraBytes).fill(1);
  const kept = [...tensors].filter((tensor) => tensor.name !== leftOut);
  const file = join(folder, name);
  writeGguf(file, { metadata, tensors: [{ name: "extra", type: "f32", shape, content }, ...kept] });
  return file;
}

test("an embedding is a table of rows unless it is the head too", () => {
  using untied = open("lazy");
  using tied = new LoadedModel(writeVariant("tied.gguf", 4096, "output.weight"), options);
  expect([...rowTables(untied.model.plan)]).toEqual(["token_embd.weight"]);
  expect([...rowTables(tied.plan)]).toEqual([]);
});

/** Whether pages can be mapped ahead of their use: Linux 5.14 and later. */
function canPopulate(): boolean {
  const [major = 0, minor = 0] = release().split(".").map(Number);
  return process.platform === "linux" && (major > 5 || (major === 5 && minor >= 14));
}

test.if(canPopulate())("tables are not mapped before they are read", () => {
  // Around what is mapped Linux maps more, up to 2 MiB.
  const extraBytes = 16 * 2 ** 20;
  const large = writeVariant("large.gguf", extraBytes, "");
  for (const [tables, least, most] of [
    [["extra"], extraBytes - 2 * 2 ** 21, extraBytes],
    [[], 0, 0],
  ] as const) {
    using file = new ModelFile(large);
    const { totalBytes, doneBytes } = [...file.populate(new Set(tables))].at(-1)!;
    expect(doneBytes).toBe(totalBytes);
    const unmapped = Math.ceil(totalBytes / 4096) * 4096 - mappedBytes(file, totalBytes);
    expect(unmapped).toBeGreaterThanOrEqual(least);
    expect(unmapped).toBeLessThanOrEqual(most);
  }
});

test.if(hasHugePages())("what of memory lies on huge pages is seen", () => {
  const bytes = 2 ** 23;
  using region = new MemoryRegion(bytes, "huge", "test");
  const pages = () => rangePages(region.address, region.bytes);
  expect(pages()).toEqual({ resident: 0, huge: 0 });
  new Uint8Array(viewMemory(region.address, bytes / 2)).fill(1);
  expect(pages().resident).toBe(bytes / 2);
  expect(pages().huge).toBeGreaterThan(0);
});

/** Whether programs that ask for huge pages get them. */
function hasHugePages(): boolean {
  const setting = "/sys/kernel/mm/transparent_hugepage/enabled";
  return existsSync(setting) && !readFileSync(setting, "utf8").includes("[never]");
}

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
    for (const { doneBytes } of moving.model.copyWeights(2, { pieceBytes: 100_000 })) {
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

test("tables stay in the file until everything is wanted in memory", () => {
  const large = writeVariant("tables.gguf", 2 ** 20, "");
  using model = new LoadedModel(large, { ...options, load: "lazy", maxOutputsPerStep: 64 });
  const { file } = model;
  const driver = new StepDriver(model.session, contextLen);
  const logits = () => {
    driver.run(tokenIds, 0, 40, "all");
    return Float32Array.from(model.session.readTensor(model.plan.logits!));
  };
  const expected = logits();
  const tables = new Set(["extra", "token_embd.weight"]);
  const addresses = () => [...tables, "output.weight"].map((name) => file.address(name));
  const [extra, embedding, output] = addresses();
  for (const _ of model.copyWeights(2, { pieceBytes: 100_000, tables }));
  expect(addresses().slice(0, 2)).toEqual([extra!, embedding!]);
  expect(file.address("output.weight")).not.toBe(output!);
  const tableBytes = [...tables].reduce((sum, name) => sum + file.bytes(name), 0);
  expect(file.copiedBytes).toBe(file.copyBytes - tableBytes);
  expectSameBits(logits(), expected, tinyVocabSize, "without tables");
  for (const _ of model.bringInAs("eager")) {
    expectSameBits(logits(), expected, tinyVocabSize, "while they are taken in");
  }
  expect(file.copiedBytes).toBe(file.copyBytes);
  expect(file.address("extra")).not.toBe(extra!);
  expectSameBits(logits(), expected, tinyVocabSize, "with tables");
});

test("a copy that was left half done is gone on with", () => {
  using model = new LoadedModel(path, { ...options, load: "lazy" });
  for (const _ of model.copyWeights(1, { pieceBytes: 100_000 })) break;
  const { copiedBytes, copyBytes } = model.file;
  expect(copiedBytes).toBeGreaterThan(0);
  expect(copiedBytes).toBeLessThan(copyBytes);
  const [first] = [...model.bringInAs("eager")];
  expect(first!.totalBytes).toBe(model.file.header.fileBytes[0]! - 100_000);
  expect(model.file.copiedBytes).toBe(copyBytes);
  expect([...model.bringInAs("eager")]).toEqual([]);
});

test("arena, KV pool, scratch and tables are taken as planned, to the byte", () => {
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

/** The greedy continuation of a prompt. */
async function continuation(client: EngineClient, numTokens: number): Promise<number[]> {
  const promptTokenIds = Int32Array.from(tokenIds.slice(0, 30));
  const sampling = { ...defaultSampling, temperature: 0 };
  const request = { promptTokenIds, maxTokens: numTokens, sampling, stopTokenIds: [] };
  const ids: number[] = [];
  for await (const event of client.generate(request)) {
    if (event.kind === "token") ids.push(event.tokenId);
  }
  return ids;
}

test("a running engine copies its weights when idle, and changes its mode at any time", async () => {
  await using client = await startEngineWorker(path, options);
  const expected = await continuation(client, 60);
  const deadline = performance.now() + 30_000;
  let status = await client.status();
  expect(status.loadMode).toBe("auto");
  // It copies by pieces, all but the embedding.
  const least = fileBytes() - 2 ** 17;
  while (status.copiedWeightBytes <= least && performance.now() < deadline) {
    await Bun.sleep(20);
    status = await client.status();
  }
  expect(status.copiedWeightBytes).toBeGreaterThan(least);
  expect(await continuation(client, 60)).toEqual(expected);
  const answers = Array.from({ length: 3 }, () => continuation(client, 60));
  for (const mode of ["lazy", "eager", "lazy", "auto", "eager", "lazy"] as const) {
    await client.setLoadMode(mode);
    const { loadMode, copiedWeightBytes } = await client.status();
    expect(loadMode).toBe(mode);
    if (mode !== "auto") expect(copiedWeightBytes > 0).toBe(mode === "eager");
  }
  expect(await Promise.all(answers)).toEqual([expected, expected, expected]);
});

test("an idle engine copies what cannot lie interleaved unless it lies on huge pages", async () => {
  const large = writeVariant("idle.gguf", 2 ** 26, "", "codebooks");
  await using client = await startEngineWorker(large, options);
  await continuation(client, 1);
  // Written in few large pieces, which many file systems of Linux keep in huge pages.
  using file = new ModelFile(large);
  for (const _ of file.populate(new Set()));
  const deadline = performance.now() + (file.isOnHugePages ? 1000 : 30_000);
  const isCopied = async () => (await client.status()).copiedWeightBytes > 0;
  while (!(await isCopied()) && performance.now() < deadline) await Bun.sleep(20);
  expect(await isCopied()).toBe(!file.isOnHugePages);
});

test("a file larger than memory is never copied, and says what is missing", async () => {
  const large = join(folder, "large.gguf");
  writeFileSync(large, readFileSync(path));
  truncateSync(large, 2 ** 42); // Holes: the file takes no space.
  expect(() => new LoadedModel(large, { ...options, load: "eager" })).toThrow(/GB are missing/);
  await using client = await startEngineWorker(large, options);
  const expected = await continuation(client, 10);
  // Not by `rejects`, which keeps the Worker's messages from coming.
  const refusal = await client.setLoadMode("eager").then(
    () => "changed",
    (error: Error) => error.message,
  );
  expect(refusal).toContain("GB are missing");
  expect((await client.status()).loadMode).toBe("auto");
  await Bun.sleep(600); // Long enough for an idle engine to begin with a file that fits.
  expect((await client.status()).copiedWeightBytes).toBe(0);
  expect(await continuation(client, 10)).toEqual(expected);
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
