// Weights that change their type under a running engine: answers go on, later ones are those of a
// model of that type, and the way back leads to the file's own.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TinferError } from "../../src/core/errors.ts";
import type { EngineClient } from "../../src/engine/client.ts";
import { Engine } from "../../src/engine/engine.ts";
import { defaultModelOptions, type LoadMode, type ModelOptions } from "../../src/engine/options.ts";
import { changeWeightType } from "../../src/engine/weight-type.ts";
import { startEngineWorker } from "../../src/engine/worker.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { writeFolder } from "../tiny-folder.ts";
import { Random } from "./random.ts";
import { tinyAdapter } from "./tiny-adapter.ts";
import { tinyMixes, tinyModel } from "./tiny-model.ts";

let folder = "";
let path = "";
let cache: string | undefined;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-weight-type-"));
  path = join(folder, "floats.gguf");
  writeGguf(path, tinyModel("floats", tinyMixes["floats"]!));
  cache = process.env["TINFER_HOME"];
  process.env["TINFER_HOME"] = folder;
});
afterAll(() => {
  if (cache === undefined) delete process.env["TINFER_HOME"];
  else process.env["TINFER_HOME"] = cache;
  rmSync(folder, { recursive: true });
});

const options: ModelOptions = {
  ...{ ...defaultModelOptions, contextLen: 256, numThreads: 1, maxSequences: 2 },
  ...{ kvTypeK: "f32", kvTypeV: "f32" },
};

async function answer(client: EngineClient, maxTokens: number): Promise<number[]> {
  const promptTokenIds = Int32Array.from({ length: 40 }, (_, i) => (i * 7919 + 5) % 300);
  const sampling = { ...defaultSampling, temperature: 0 };
  const ids: number[] = [];
  for await (const event of client.generate({
    ...{ promptTokenIds, maxTokens, sampling, stopTokenIds: [] },
  })) {
    if (event.kind === "token") ids.push(event.tokenId);
  }
  return ids;
}

test("later answers are those of a file of that type; the way back is exact", async () => {
  const file = join(folder, "q4.gguf");
  for (const _ of changeWeightType(path, "q4_0", file, 1));
  await using quantised = new Engine(file, options);
  const expected = await answer(quantised, 60);
  await using engine = new Engine(path, options);
  const before = await answer(engine, 60);
  expect(before).not.toEqual(expected);
  await engine.setWeightType("q4_0");
  expect(engine.facts).toMatchObject({ mainType: "q4_0", path });
  expect(await answer(engine, 60)).toEqual(expected);
  await engine.setWeightType("original");
  expect(await answer(engine, 60)).toEqual(before);
  engine.checkIntegrity();
  // What was made for this process alone is gone.
  expect(readdirSync(join(folder, "cache"))).toEqual([]);
});

test("folders too, and those that were quantised while they loaded", async () => {
  const from = join(folder, "model-folder");
  const size = { hidden: 256, heads: 4, kvHeads: 2, ffn: 512, vocab: 300, layers: 2 };
  writeFolder(from, size, "BF16");
  const file = join(folder, "folder-q4.gguf");
  for (const _ of changeWeightType(from, "q4_0", file, 1));
  await using quantised = new Engine(file, options);
  const expected = await answer(quantised, 60);
  await using engine = new Engine(from, { ...options, quantize: "q8_0" });
  const before = await answer(engine, 60);
  await engine.setWeightType("q4_0");
  expect(engine.facts).toMatchObject({ mainType: "q4_0", path: from });
  expect(await answer(engine, 60)).toEqual(expected);
  // As the folder has them, not as they were loaded: small ones are widened.
  await engine.setWeightType("original");
  expect(engine.facts.mainType).toBe("f32");
  await engine.setWeightType("q8_0");
  expect(await answer(engine, 60)).toEqual(before);
});

test("answers in progress go on across the change, over a Worker too", async () => {
  await using client = await startEngineWorker(path, options);
  const answers = [answer(client, 200), answer(client, 200)];
  await client.setWeightType("q8_0");
  expect(client.facts.mainType).toBe("q8_0");
  expect((await Promise.all(answers)).map(({ length }) => length)).toEqual([200, 200]);
});

test("a type that does not exist, and a second change meanwhile, leave all as it was", async () => {
  await using engine = new Engine(path, options);
  const message = (promise: Promise<void>) => promise.then(String, (error: Error) => error.message);
  expect(await message(engine.setWeightType("q4_x"))).toContain("q4_x");
  const first = engine.setWeightType("q6_k");
  expect(await message(engine.setWeightType("q8_0"))).toContain("on their way");
  expect((await engine.status()).weightChange?.type).toBe("q6_k");
  await first;
  expect((await engine.status()).weightChange).toBeUndefined();
  expect(engine.facts.mainType).toBe("q6_k");
});

test("a change that is stopped leaves all as it was, over a Worker too", async () => {
  const engine = new Engine(path, options);
  for await (const client of [engine, await startEngineWorker(path, options)]) {
    const { mainType } = client.facts;
    const before = await answer(client, 20);
    const stopped = async (isEarly: boolean) => {
      const controller = new AbortController();
      if (isEarly) controller.abort();
      const change = client.setWeightType("q8_0", controller.signal);
      const code = change.catch((error: TinferError) => error.code);
      const running = isEarly ? undefined : (await client.status()).weightChange?.type;
      controller.abort();
      if (!isEarly && (await code) === "cancelled") expect(running).toBe("q8_0");
      return code;
    };
    expect(await stopped(true)).toBe("cancelled");
    // On a busy machine it may be over before its end is asked for.
    let code = await stopped(false);
    for (let round = 0; round < 20 && code !== "cancelled"; round++) {
      await client.setWeightType("original");
      code = await stopped(false);
    }
    expect(code).toBe("cancelled");
    expect((await client.status()).weightChange).toBeUndefined();
    expect(client.facts.mainType).toBe(mainType);
    expect(await answer(client, 20)).toEqual(before);
    await client.setWeightType("q8_0");
    expect(client.facts.mainType).toBe("q8_0");
    await client[Symbol.asyncDispose]();
  }
});

test("an engine that closes meanwhile leaves no file, and what was left is removed", async () => {
  const left = join(folder, "cache", "weights-left");
  mkdirSync(left, { recursive: true });
  const engine = new Engine(path, options);
  const change = engine.setWeightType("q8_0").catch((error: TinferError) => error.code);
  expect(existsSync(left)).toBe(false);
  await engine[Symbol.asyncDispose]();
  expect(await change).toBe("cancelled");
  expect(readdirSync(join(folder, "cache"))).toEqual([]);
});

test("scales and the way to load that are set meanwhile hold afterwards", async () => {
  const adapter = join(folder, "style.gguf");
  const { content } = tinyAdapter(tinyModel("floats", tinyMixes["floats"]!), new Random("adapter"));
  writeGguf(adapter, content);
  const scaled = (scale: number) => [{ name: "style", path: adapter, scale }];
  await using engine = new Engine(path, { ...options, adapters: scaled(1) });
  let isDone = false;
  let [scale, mode]: [number, LoadMode] = [1, options.load];
  const change = engine.setWeightType("q8_0").finally(() => {
    isDone = true;
  });
  while (!isDone) {
    await engine.setAdapters(scaled(++scale));
    mode = mode === "lazy" ? "auto" : "lazy";
    await engine.setLoadMode(mode);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await change;
  expect(engine.facts.adapters[0]!.scale).toBe(scale);
  expect((await engine.status()).loadMode).toBe(mode);
});
