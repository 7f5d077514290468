// Importance matrices: the CPU's sums are the reference's, experts count their own tokens, and the
// first product's are what the embedding and its norm give by hand.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  importanceTensors,
  type MeasuredImportance,
  measureImportance,
} from "../../src/engine/importance-collector.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { fuseNorms } from "../../src/plan/fuse-norms.ts";
import { keepInputs } from "../../src/plan/keep-inputs.ts";
import type { Op, Tensor, Weight } from "../../src/plan/ops.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { readImportance } from "../../src/weights/importance.ts";
import { readTensorFloats } from "../../src/weights/tensor-content.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-importance-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const chunkLen = 150;
const tokenIds = Int32Array.from({ length: 310 }, (_, i) => (i * 7919 + 5) % tinyVocabSize);

function write(name: string): string {
  const path = join(folder, `${name}.gguf`);
  writeGguf(path, tinyModel(name, tinyMixes[name]!));
  return path;
}

function measure(path: string, backend: string): MeasuredImportance {
  const options = { ...defaultModelOptions, backend };
  const chunks = { chunkLen, numChunks: undefined, bosId: undefined };
  const steps = measureImportance(path, options, tokenIds, chunks);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

test("the CPU's sums are the reference's, for dense and expert layers", () => {
  for (const name of ["floats", "experts"]) {
    const path = write(name);
    const [cpu, reference] = [measure(path, "cpu"), measure(path, "reference")];
    expect([...cpu.entries.keys()]).toEqual([...reference.entries.keys()]);
    expect(cpu).toMatchObject({ numChunks: 2, numTokens: 300 });
    for (const [weight, { sums, counts }] of cpu.entries) {
      const wanted = reference.entries.get(weight)!;
      const total = wanted.sums.reduce((a, b) => a + b, 0);
      const apart = wanted.sums.reduce((sum, value, i) => sum + Math.abs(value - sums[i]!), 0);
      // Quantised activations may send a token to another expert.
      expect({ weight, isNear: apart < 0.1 * total }).toEqual({ weight, isNear: true });
      const tokens = counts.reduce((a, b) => a + b, 0);
      expect({ weight, tokens }).toEqual({ weight, tokens: weight.includes("_exps") ? 600 : 300 });
    }
  }
});

test("the first product's input by hand: the normalised embeddings", () => {
  const path = write("floats");
  const { entries } = measure(path, "cpu");
  const file = readGguf(path);
  const floats = (name: string) => readTensorFloats(file, file.tensors.get(name)!);
  const [embedding, norm] = [floats("token_embd.weight"), floats("blk.0.attn_norm.weight")];
  const sums = new Float64Array(256);
  for (const id of tokenIds.subarray(0, 300)) {
    const row = embedding.subarray(id * 256, (id + 1) * 256);
    const square = row.reduce((sum, value) => sum + value * value, 0) / 256;
    row.forEach((value, i) => {
      sums[i]! += (value * norm[i]!) ** 2 / (square + 1e-5);
    });
  }
  const measured = entries.get("blk.0.attn_k.weight")!;
  sums.forEach((value, i) => {
    expect(Math.abs(measured.sums[i]! / value - 1)).toBeLessThan(1e-4);
  });
});

test("what is written reads back as means; quantisation takes it", () => {
  const { entries } = measure(write("experts"), "cpu");
  const path = join(folder, "imatrix.gguf");
  writeGguf(path, { metadata: [], tensors: importanceTensors(entries) });
  const { values } = readImportance(path);
  expect(values.size).toBe(entries.size);
  const { sums, counts, cols } = entries.get("blk.1.ffn_down_exps.weight")!;
  const read = values.get("blk.1.ffn_down_exps.weight")!;
  expect(read.length).toBe(5 * cols);
  expect(read[3 * cols + 7]! / (sums[3 * cols + 7]! / counts[3]!)).toBeCloseTo(1, 5);
});

test("inputs that change in place before the step's end are copied, others are not", () => {
  const tensor = (id: number): Tensor => ({ id, rows: "tokens", width: 64 });
  const weight: Weight = { id: 0, name: "w", rows: 64, cols: 64, typeId: 0, gain: 1 };
  const [a, b, c] = [tensor(0), tensor(1), tensor(2)];
  const product = (input: Tensor, output: Tensor): Op => {
    const outputs = [{ weight, bias: undefined, output }];
    return { kind: "linear", input, inputNorm: undefined, epilogue: "store", outputs };
  };
  const ops: Op[] = [product(a, b), product(b, c), { kind: "add", input: c, output: a, scale: 1 }];
  const { ops: kept, products } = keepInputs(ops, () => tensor(9));
  expect(kept.map(({ kind }) => kind)).toEqual(["copyColumns", "linear", "linear", "add"]);
  expect(products.map(({ input }) => input.id)).toEqual([9, 1]);
  expect(fuseNorms(kept, []).length).toBe(4);
});
