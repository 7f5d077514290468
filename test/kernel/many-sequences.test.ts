// More sequences than the tokens of a usual step: all of them generate side by side, and another
// prompt still finds room.
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Engine } from "../../src/engine/engine.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { tinyMixes, tinyModel } from "./tiny-model.ts";

const numSequences = 520;
const maxTokens = 24;

test(`${numSequences} sequences at once`, async () => {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-many-sequences-"));
  const path = join(folder, "floats.gguf");
  writeGguf(path, tinyModel("floats", tinyMixes["floats"]!));
  const options = { ...defaultModelOptions, contextLen: 128, maxSequences: numSequences };
  await using engine = new Engine(path, options);
  rmSync(folder, { recursive: true });
  const sampling = { ...defaultSampling, temperature: 0 };
  /** How many others had ended when it did. */
  let numEnded = 0;
  const answer = async (index: number) => {
    const promptTokenIds = Int32Array.of(1 + (index % 200), 2 + Math.floor(index / 200));
    const request = { promptTokenIds, maxTokens, sampling, stopTokenIds: [] };
    let beforeFirst: number | undefined;
    for await (const _ of engine.generate(request)) beforeFirst ??= numEnded;
    numEnded++;
    return beforeFirst;
  };
  const answers = (first: number, count: number) =>
    Array.from({ length: count }, (_, i) => answer(first + i));
  const most = answers(0, 500);
  while ((await engine.status()).running < 500) await new Promise(setImmediate);
  const rest = answers(500, numSequences - 500);
  // Everyone began before anyone ended.
  expect(Math.max(...(await Promise.all([...most, ...rest])).map(Number))).toBe(0);
});
