// Perplexity and KL divergence against the same sums written out plainly over raw logits.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { computeRows } from "../../src/engine/logits.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import {
  measurePerplexity,
  type PerplexityOptions,
  type PerplexityResult,
} from "../../src/engine/perplexity.ts";
import { LogitsReader, SavedRow, scoredLen } from "../../src/engine/saved-logits.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { tinyModel, tinySize } from "../cli/tiny-model.ts";

const options = { ...defaultModelOptions, kvTypeK: "f32", kvTypeV: "f32" } as const;
const bosId = 1;
const chunkLen = 150;
const numChunks = 2;
const tokenIds = Int32Array.from({ length: 340 }, (_, i) => (i * 7919 + 13) % tinySize.vocab);

let folder: string;
let model: string;
let other: string;
let logSave: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-perplexity-"));
  [model, other, logSave] = [join(folder, "a.gguf"), join(folder, "b.gguf"), join(folder, "a.kld")];
  writeGguf(model, tinyModel());
  const content = tinyModel();
  for (const { name, content: bytes } of content.tensors) {
    if (name !== "blk.0.ffn_up.weight" && name !== "token_embd.weight") continue;
    const floats = new Float32Array((bytes as Uint8Array<ArrayBuffer>).buffer);
    floats.forEach((value, index) => {
      floats[index] = value * (1 + (index % 5) / 20);
    });
  }
  writeGguf(other, content);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function measure(path: string, given: Partial<PerplexityOptions> = {}): PerplexityResult {
  const common = { chunkLen, numChunks: undefined, bosId, saveTo: undefined, base: undefined };
  const steps = measurePerplexity(path, options, tokenIds, { ...common, ...given });
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/** Log probabilities of the scored positions, [position][token], and the tokens that came. */
function logProbabilities(path: string): { rows: number[][]; targets: number[] } {
  const rows: number[][] = [];
  const targets: number[] = [];
  for (let chunk = 0; chunk < numChunks; chunk++) {
    const ids = tokenIds.slice(chunk * chunkLen, (chunk + 1) * chunkLen);
    const targetIds = ids.slice();
    ids[0] = bosId;
    const all: number[] = [];
    const wide = { ...options, contextLen: 256 };
    for (const { values } of computeRows(path, wide, ids, "tokens", 50)) {
      for (const logit of values) all.push(logit);
    }
    for (let i = chunkLen / 2; i < chunkLen - 1; i++) {
      const logits = all.slice(i * tinySize.vocab, (i + 1) * tinySize.vocab);
      const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
      rows.push(logits.map((logit) => logit - Math.log(sum)));
      targets.push(targetIds[i + 1]!);
    }
  }
  return { rows, targets };
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

test("perplexity is exp of the mean loss over the second halves", () => {
  const { rows, targets } = logProbabilities(model);
  const losses = rows.map((row, index) => -row[targets[index]!]!);
  const result = measure(model, { saveTo: logSave });
  expect(result).toMatchObject({ chunkLen, numChunks, numScored: losses.length });
  expect(losses.length).toBe(numChunks * scoredLen(chunkLen));
  expect(result.perplexity.value / Math.exp(mean(losses))).toBeCloseTo(1, 6);
  const variance = mean(losses.map((loss) => (loss - mean(losses)) ** 2));
  const error = Math.exp(mean(losses)) * Math.sqrt(variance / (losses.length - 1));
  expect(result.perplexity.error / error).toBeCloseTo(1, 5);
});

test("saved logits hold every scored distribution, and the model is itself", () => {
  const { rows } = logProbabilities(model);
  {
    using reader = new LogitsReader(logSave);
    expect(reader.header).toMatchObject({ chunkLen, numChunks, vocabSize: tinySize.vocab });
    const saved = new SavedRow(tinySize.vocab);
    for (const row of rows) {
      reader.read(saved);
      row.forEach((value, id) => {
        expect(Math.abs(saved.logProbability(id) - value)).toBeLessThan(1e-4);
      });
    }
  }
  using base = new LogitsReader(logSave);
  const { divergence } = measure(model, { base });
  expect(divergence!.mean.value).toBeLessThan(1e-8);
  expect(divergence).toMatchObject({ topAgreement: 1 });
  expect(divergence!.perplexityRatio.value).toBeCloseTo(1, 6);
});

test("KL divergence, agreement and ratio of another model", () => {
  const [a, b] = [logProbabilities(model), logProbabilities(other)];
  using base = new LogitsReader(logSave);
  const { divergence, perplexity } = measure(other, { base });
  const divergences = a.rows.map((row, index) =>
    row.reduce((sum, p, id) => sum + Math.exp(p) * (p - b.rows[index]![id]!), 0),
  );
  const sorted = divergences.toSorted((x, y) => x - y);
  expect(divergence!.mean.value / mean(divergences)).toBeCloseTo(1, 3);
  const middle = sorted.length / 2;
  const median = (sorted[middle - 1]! + sorted[middle]!) / 2;
  expect(divergence!.median / median).toBeCloseTo(1, 3);
  expect(divergence!.max / sorted.at(-1)!).toBeCloseTo(1, 3);
  const top = (row: number[]) => row.indexOf(Math.max(...row));
  const same = a.rows.filter((row, index) => top(row) === top(b.rows[index]!)).length;
  expect(divergence!.topAgreement).toBeCloseTo(same / a.rows.length, 2);
  const own = Math.exp(-mean(a.rows.map((row, index) => row[a.targets[index]!]!)));
  expect(divergence!.perplexityRatio.value).toBeCloseTo(perplexity.value / own, 5);
});

test("files of other programs end after the rows; cut and foreign ones are refused", () => {
  const bytes = readFileSync(logSave);
  const path = join(folder, "theirs.kld");
  writeFileSync(path, bytes.subarray(0, bytes.length - 4 * numChunks * scoredLen(chunkLen)));
  {
    using reader = new LogitsReader(path);
    expect(reader.losses).toBeUndefined();
  }
  truncateSync(path, statSync(path).size - 2);
  expect(() => new LogitsReader(path)).toThrow("no saved logits, or not all");
  writeFileSync(path, "hello");
  expect(() => new LogitsReader(path)).toThrow("no saved logits");
  expect(() => new LogitsReader(join(folder, "absent"))).toThrow("cannot be read");
});

test("a text shorter than one chunk is refused", () => {
  expect(() => measure(model, { chunkLen: 400 })).toThrow("one chunk takes 400");
});
