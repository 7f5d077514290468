// Hidden states of long texts are computed in turns with answers; whoever asked may leave between
// two steps, and what changes the model waits for the text that is under way.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TinferError } from "../../src/core/errors.ts";
import type { EngineClient } from "../../src/engine/client.ts";
import { Engine } from "../../src/engine/engine.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { startEngineWorker } from "../../src/engine/worker.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

let folder = "";
let path = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-embedding-turns-"));
  path = join(folder, "floats.gguf");
  writeGguf(path, tinyModel("floats", tinyMixes["floats"]!));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const options = { ...defaultModelOptions, contextLen: 512, maxTokensPerStep: 16 };
const text = (first: number) =>
  Int32Array.from({ length: 480 }, (_, i) => (first + i * 5) % tinyVocabSize);

async function answer(client: EngineClient): Promise<number[]> {
  const promptTokenIds = Int32Array.of(1, 2, 3);
  const sampling = { ...defaultSampling, temperature: 0 };
  const request = { promptTokenIds, maxTokens: 5, sampling, stopTokenIds: [] };
  const tokens: number[] = [];
  for await (const event of client.generate(request)) {
    if (event.kind === "token") tokens.push(event.tokenId);
  }
  return tokens;
}
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "",
    (error: TinferError) => error.code,
  );

test("answers come while a long text is read, and both are what they are alone", async () => {
  await using engine = new Engine(path, options);
  const alone = [await engine.embed([text(0)], "mean"), await engine.embed([text(3)], "mean")];
  const tokens = await answer(engine);
  let numRead = 0;
  const reading = [0, 3].map(async (first) => {
    const vectors = await engine.embed([text(first)], "mean");
    numRead++;
    return vectors;
  });
  expect(await answer(engine)).toEqual(tokens);
  expect(numRead).toBe(0);
  expect(await Promise.all(reading)).toEqual(alone);
});

test("a text is given up between two steps, over a Worker too", async () => {
  for (const client of [new Engine(path, options), await startEngineWorker(path, options)]) {
    const [vector] = await client.embed([text(0)], "last");
    const giveUp = async () => {
      const controller = new AbortController();
      const given = codeOf(client.embed([text(3)], "last", undefined, controller.signal));
      const waiting = client.embed([text(0)], "last");
      await answer(client);
      controller.abort();
      expect(await waiting).toEqual([vector!]);
      return given;
    };
    // A busy machine may have read the text before its end is asked for.
    let code = "";
    for (let round = 0; round < 20 && code !== "cancelled"; round++) code = await giveUp();
    expect(code).toBe("cancelled");
    await client[Symbol.asyncDispose]();
  }
});

test("the weights change and the engine closes between texts", async () => {
  const engine = new Engine(path, options);
  const [before] = await engine.embed([text(0)], "last");
  const reading = engine.embed([text(0)], "last");
  const changing = engine.setWeightType("q8_0");
  expect(await reading).toEqual([before!]);
  await changing;
  const [after] = await engine.embed([text(0)], "last");
  expect(after).not.toEqual(before!);
  const closed = [engine.embed([text(0)], "last"), engine.embed([text(3)], "last")].map(codeOf);
  await engine[Symbol.asyncDispose]();
  expect(await Promise.all(closed)).toEqual(["cancelled", "cancelled"]);
});
