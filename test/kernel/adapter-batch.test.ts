// Adapters of one plan on a model with experts in quant types, one of them with lengths of rows
// (DoRA): a row's bits do not depend on who else is in the step and by which scales, and lengths
// follow from the weights as they are quantised.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAdapters } from "../../src/engine/adapter-choice.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { type GgufTensorSource, writeGguf } from "../../src/weights/gguf-writer.ts";
import { mergePeft, saveAdapter } from "../golden/peft-fixture.ts";
import { logitsOf, nmse } from "../golden/reference-logits.ts";
import { expectSameBits } from "./compare.ts";
import { cpuVariants, fillStep, type SequencePart } from "./executor.ts";
import { Random } from "./random.ts";
import { tinyAdapter } from "./tiny-adapter.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";
import { folderMatrices, tinyDora } from "./tiny-peft.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-batch-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const model = tinyModel("adapter batch", tinyMixes["experts"]!);
const { tensors, adapter: dora } = tinyDora(model, new Random("batch"));

test("lengths follow from the quantised weights", () => {
  const whole = new Map(tensors);
  mergePeft(whole, dora, -0.8);
  const merged = [...model.tensors].map((tensor): GgufTensorSource => {
    const parts = folderMatrices(tensor).map(([name]) => whole.get(name)!.values);
    if (parts.length === 0) return tensor;
    const bytes = parts.map((values) => new Uint8Array(values.slice().buffer));
    return { ...tensor, type: "f32", content: new Uint8Array(Buffer.concat(bytes)) };
  });
  const [base, other] = [join(folder, "base.gguf"), join(folder, "merged.gguf")];
  writeGguf(base, model);
  writeGguf(other, { ...model, tensors: merged });
  const adapters = parseAdapters([`${saveAdapter(join(folder, "dora"), dora)}=-0.8`]);
  const tokenIds = Array.from({ length: 12 }, (_, i) => (i * 31 + 7) % tinyVocabSize);
  const options = { backend: "reference" };
  const wanted = logitsOf(other, tokenIds, 12, options);
  expect(nmse(logitsOf(base, tokenIds, 12, { ...options, adapters }), wanted)).toBeLessThan(1e-9);
  // Activations of 8 bits on one side.
  expect(nmse(logitsOf(base, tokenIds, 12, { adapters }), wanted)).toBeLessThan(0.05);
});

describe("the same bits alone and among others", () => {
  for (const cpuVariant of ["reference", ...cpuVariants]) {
    test(cpuVariant, () => {
      const base = join(folder, "base.gguf");
      writeGguf(base, model);
      const plain = join(folder, "plain.gguf");
      writeGguf(plain, tinyAdapter(model, new Random("plain")).content);
      const adapters = parseAdapters([plain, saveAdapter(join(folder, "dora"), dora)]);
      using loaded = new LoadedModel(base, {
        ...defaultModelOptions,
        ...(cpuVariant === "reference" ? { backend: "reference" } : { backend: "cpu", cpuVariant }),
        ...{ numThreads: 2, contextLen: 64, maxSequences: 4, maxTokensPerStep: 64, adapters },
        maxOutputsPerStep: 64,
      });
      const { session, plan } = loaded;
      const run = (
        parts: readonly { part: SequencePart; scales: readonly number[] }[],
        outputRows?: readonly number[],
      ) => {
        const step = { parts: parts.map(({ part }) => part) };
        fillStep(session.stepData, outputRows === undefined ? step : { ...step, outputRows });
        let row = 0;
        for (const { part, scales } of parts) {
          const count = part.tokenIds.length;
          session.stepData.setAdapterScales(row, count, Float32Array.from(scales));
          row += count;
        }
        session.run();
        return Float32Array.from(session.readTensor(plan.logits!));
      };
      const scales = [
        [0, 0],
        [1, 0],
        [0, 1],
        [0.5, -0.7],
      ] as const;
      const sequences = scales.map((own, index) => {
        const tokenIds = Array.from(
          { length: [9, 1, 14, 5][index]! },
          (_, i) => (i * 17 + index) % 300,
        );
        return { part: { tokenIds, start: 0, blockIds: [index] }, scales: own };
      });
      const together = run(sequences);
      let row = 0;
      const alone = sequences.map((sequence) => {
        const logits = run([sequence]);
        const numRows = sequence.part.tokenIds.length;
        const own = together.subarray(row * tinyVocabSize, (row + numRows) * tinyVocabSize);
        expectSameBits(own, logits, tinyVocabSize, `${cpuVariant} scales ${sequence.scales}`);
        row += numRows;
        return logits;
      });
      // The last layer's rows are only those whose logits are wanted.
      const lastRows = [8, 9, 23, 28];
      const some = run(sequences, lastRows);
      lastRows.forEach((place, index) => {
        const whole = together.subarray(place * tinyVocabSize, (place + 1) * tinyVocabSize);
        const own = some.subarray(index * tinyVocabSize, (index + 1) * tinyVocabSize);
        expectSameBits(own, whole, tinyVocabSize, `${cpuVariant} row ${place}`);
      });
      // Without a scale the bits are those of the model, which has no adapters then.
      using without = new LoadedModel(base, {
        ...defaultModelOptions,
        ...(cpuVariant === "reference" ? { backend: "reference" } : { backend: "cpu", cpuVariant }),
        ...{ numThreads: 2, contextLen: 64, maxTokensPerStep: 64, maxOutputsPerStep: 64 },
      });
      fillStep(without.session.stepData, { parts: [sequences[0]!.part] });
      without.session.run();
      const bare = Float32Array.from(without.session.readTensor(without.plan.logits!));
      expectSameBits(alone[0]!, bare, tinyVocabSize, `${cpuVariant} without`);
    });
  }
});
