// How weights lie that tinfer copies or makes: interleaved wherever kernels and the plan allow it,
// byte for byte as the library interleaves a whole tensor, and with the results that rows give.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import type { ModelFile } from "../../src/engine/model-file.ts";
import { defaultModelOptions, type ModelOptions } from "../../src/engine/options.ts";
import { StepDriver } from "../../src/engine/step-driver.ts";
import { viewMemory } from "../../src/native/memory.ts";
import { PlanBuilder } from "../../src/plan/builder.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { writeFolder } from "../tiny-folder.ts";
import { expectSameBits } from "./compare.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor } from "./executor.ts";
import { Random } from "./random.ts";
import { TestWeights } from "./test-weights.ts";
import { type TinyTypes, tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

const mixes: Readonly<Record<string, TinyTypes>> = {
  ...tinyMixes,
  // Types that no mix has, or only in the embedding and the output, of 300 rows.
  more: {
    ...tinyMixes["blocks"]!,
    attention: "tq1_0",
    value: "iq4_nl",
    mlp: "mxfp4",
    down: "iq4_xs",
  },
  "more-experts": { ...tinyMixes["experts"]!, mlp: "q8_0", down: "q3_k" },
};
let folder = "";
const pathOf = (mix: string) => join(folder, `${mix}.gguf`);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-interleaved-"));
  for (const [name, mix] of Object.entries(mixes)) writeGguf(pathOf(name), tinyModel(name, mix));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const contextLen = 96;
const options: ModelOptions = { ...defaultModelOptions, contextLen, numThreads: 2 };
const tokenIds = Array.from({ length: contextLen }, (_, i) => (i * 7919 + 13) % tinyVocabSize);

function open(mix: string, rest: Partial<ModelOptions>): LoadedModel {
  return new LoadedModel(pathOf(mix), { ...options, maxOutputsPerStep: 64, ...rest });
}

const namesIn = (file: ModelFile) => [...file.header.tensors.keys()];
const interleavedNames = ({ file }: LoadedModel) =>
  namesIn(file).filter((name) => file.isInterleaved(name));

/** All matrices of whole panels: not those of 300 rows, nor the router's. */
const panelNames = ({ file }: LoadedModel) =>
  namesIn(file).filter((name) =>
    /(attn|ffn)_(q|k|v|output|gate|up|down)(_exps)?\.weight$/.test(name),
  );

for (const mix of Object.keys(mixes)) {
  test(`${mix}: an eager copy is interleaved where it can be and gives the same bits`, () => {
    using lazy = open(mix, { load: "lazy" });
    using eager = open(mix, { load: "eager" });
    expect(interleavedNames(lazy)).toEqual([]);
    expect(interleavedNames(eager)).toEqual(mix === "codebooks" ? [] : panelNames(eager));
    const [expected, actual] = [lazy, eager].map((model) => {
      const driver = new StepDriver(model.session, contextLen);
      // Tiles, a single row, a few.
      return (
        [
          [0, 40],
          [40, 1],
          [41, 3],
        ] as const
      ).map(([start, count]) => {
        driver.run(tokenIds, start, count, "all");
        return Float32Array.from(model.session.readTensor(model.plan.logits!));
      });
    });
    actual!.forEach((logits, i) => {
      expectSameBits(logits, expected![i]!, tinyVocabSize, `${mix}, step ${i}`);
    });
  });
}

/** A tensor as it lies in memory. */
const memoryOf = (weights: Pick<ModelFile, "address" | "bytes">, name: string) =>
  Buffer.from(new Uint8Array(viewMemory(weights.address(name), weights.bytes(name))));

/** What the tensors of a file whose weights lie in rows have to become, by name. */
function wholeInterleaved(file: ModelFile, names: readonly string[]): Map<string, Buffer> {
  using weights = new TestWeights();
  for (const [name, { type, shape }] of file.header.tensors) {
    weights.add(name, type, shape, memoryOf(file, name));
    if (names.includes(name)) weights.interleave(name);
  }
  return new Map(namesIn(file).map((name) => [name, memoryOf(weights, name)]));
}

function expectMemory(file: ModelFile, expected: ReadonlyMap<string, Buffer>): void {
  for (const [name, bytes] of expected) {
    if (!memoryOf(file, name).equals(bytes)) throw new Error(`${name} has other bytes`);
  }
}

test("copies by pieces that end anywhere have the bytes of tensors interleaved as a whole", () => {
  for (const mix of ["k-mix", "blocks", "experts"]) {
    using model = open(mix, { load: "lazy" });
    const { file } = model;
    const panels = panelNames(model);
    const inRows = wholeInterleaved(file, []);
    const expected = wholeInterleaved(file, panels);
    for (const pieceBytes of [2 ** 30, 300_007, 16_411]) {
      for (const _ of model.copyWeights(1, { pieceBytes })) {
        for (const name of interleavedNames(model)) {
          if (!memoryOf(file, name).equals(expected.get(name)!)) throw new Error(`${name} early`);
        }
      }
      expect(interleavedNames(model)).toEqual(panels);
      expectMemory(file, expected);
      model.dropCopies();
      expect(interleavedNames(model)).toEqual([]);
      expectMemory(file, inRows);
    }
  }
});

test("what `auto` copies is interleaved, however the page cache has the file", () => {
  using model = open("k-mix", { load: "auto" });
  expect(interleavedNames(model)).toEqual([]);
  for (const _ of model.promote(1));
  expect(interleavedNames(model)).toEqual(panelNames(model));
});

test("the reference backend gets copies in rows", () => {
  using model = open("k-mix", { load: "eager", backend: "reference" });
  expect(model.file.copiedBytes).toBe(model.file.copyBytes);
  expect(interleavedNames(model)).toEqual([]);
  // Which refuses others.
  new StepDriver(model.session, contextLen).run(tokenIds, 0, 2, "last");
});

test("weights quantised while loading are interleaved as they are made", () => {
  const path = join(folder, "model-folder");
  const size = { hidden: 256, heads: 4, kvHeads: 2, ffn: 512, vocab: 300, layers: 1 };
  writeFolder(path, size, "BF16");
  const quantized: ModelOptions = { ...options, quantize: "q4_k_m" };
  using inRows = new LoadedModel(path, { ...quantized, backend: "reference" });
  using made = new LoadedModel(path, quantized);
  expect(interleavedNames(inRows)).toEqual([]);
  expect(interleavedNames(made)).toEqual(panelNames(made));
  expectMemory(made.file, wholeInterleaved(inRows.file, panelNames(made)));
});

test("plans that read parts of panels of an interleaved tensor are refused", () => {
  const cols = 256;
  using weights = new TestWeights();
  weights.add("w", "q4_0", [128, cols], new Random("parts of panels").weights("q4_0", 128, cols));
  weights.interleave("w");
  const load = (first: number, rows: number, backend: string) => {
    const b = new PlanBuilder(weights, "hidden");
    const plan = b.finishHidden(b.embed(b.weightRows("w", [128, cols], first, rows)), rows);
    using executor = new TestExecutor(plan, limitsFor(1), weights, backend);
    executor.run(plainStep(1));
  };
  const [variant] = cpuVariants;
  expect(() => load(16, 64, variant!)).not.toThrow();
  expect(() => load(8, 64, variant!)).toThrow("whole panels");
  expect(() => load(16, 48, variant!)).toThrow("whole panels");
  expect(() => load(16, 64, "reference")).toThrow("in rows");
});
