// What must not change one bit of the logits: threads, tuning, how a prompt is cut into steps, who
// else is in the batch, where the KV blocks lie, whether a prefix comes from the cache, the CPU.
import { afterAll, beforeAll, describe, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultTuning, type Tuning } from "../../src/backend/tuning.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { blockSize } from "../../src/plan/arena.ts";
import type { KvType } from "../../src/plan/ops.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { expectSameBits } from "./compare.ts";
import { cpuVariants, fillStep, type SequencePart } from "./executor.ts";
import { Random } from "./random.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-kernel-"));
  for (const [name, types] of Object.entries(tinyMixes)) {
    writeGguf(join(folder, `${name}.gguf`), tinyModel(name, types));
  }
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const contextLen = 576;
const numSequences = 4;
const blocksPerSequence = contextLen / blockSize;

interface Setting {
  readonly path: string;
  readonly cpuVariant: string;
  readonly numThreads: number;
  readonly maxTokens: number;
  readonly kvType: KvType;
}

/** A loaded model whose steps are made by hand. */
class Runner implements Disposable {
  readonly #model: LoadedModel;

  constructor({ path, cpuVariant, numThreads, maxTokens, kvType }: Setting) {
    this.#model = new LoadedModel(path, {
      ...defaultModelOptions,
      ...{ backend: "cpu", cpuVariant, numThreads, contextLen },
      ...{ maxSequences: numSequences, maxTokensPerStep: maxTokens, maxOutputsPerStep: maxTokens },
      ...{ kvTypeK: kvType, kvTypeV: kvType },
    });
  }

  tune(tuning: Tuning): void {
    this.#model.session.tune(tuning);
  }

  /** Logits of all rows of one step, `[rows, vocabSize]`. */
  step(parts: readonly SequencePart[]): Float32Array {
    fillStep(this.#model.session.stepData, { parts });
    this.#model.session.run();
    return Float32Array.from(this.#model.session.readTensor(this.#model.plan.logits!));
  }

  /** Logits of tokens `from` … of one sequence, `chunkLen` at a time. */
  sequence(
    tokenIds: readonly number[],
    blockIds: readonly number[],
    chunkLen: number,
    from = 0,
  ): Float32Array {
    const logits = new Float32Array((tokenIds.length - from) * tinyVocabSize);
    for (let start = from; start < tokenIds.length; start += chunkLen) {
      const chunk = tokenIds.slice(start, start + chunkLen);
      const used = blockIds.slice(0, Math.ceil((start + chunk.length) / blockSize));
      const rows = this.step([{ tokenIds: chunk, start, blockIds: used }]);
      logits.set(rows, (start - from) * tinyVocabSize);
    }
    return logits;
  }

  [Symbol.dispose](): void {
    this.#model[Symbol.dispose]();
  }
}

/** Every field at both of its ends. */
const extremeTunings: readonly Tuning[] = [
  {
    ...{ prefetchBytes: 0, streamBytes: 0, cachedStreamBytes: 0 },
    ...{ rowsRegime: 0, floatRowsRegime: 0, spinLimit: 0 },
  },
  {
    ...{ prefetchBytes: 2 ** 24, streamBytes: 2 ** 24, cachedStreamBytes: 2 ** 24 },
    ...{ rowsRegime: 32, floatRowsRegime: 32, spinLimit: 2 ** 24 },
  },
];

const rowsOf = (logits: Float32Array, from: number, to = logits.length / tinyVocabSize) =>
  logits.subarray(from * tinyVocabSize, to * tinyVocabSize);

const inOrder = Array.from({ length: blocksPerSequence }, (_, i) => i);

const models: readonly { name: string; kvType: KvType; len: number }[] = [
  { name: "floats", kvType: "f32", len: 150 },
  { name: "k-mix", kvType: "f16", len: 560 },
  { name: "small-k", kvType: "q8_0", len: 150 },
  { name: "blocks", kvType: "bf16", len: 150 },
  { name: "experts", kvType: "f16", len: 150 },
];

for (const { name, kvType, len } of models) {
  describe(`${name}, ${kvType} cache`, () => {
    const random = new Random(`invariance ${name}`);
    const tokens = (count: number) =>
      Array.from({ length: count }, () => random.below(tinyVocabSize));
    const prompt = tokens(len);
    const others = [tokens(40), tokens(9), tokens(64)];
    let firstBits: Float32Array | undefined;

    for (const cpuVariant of cpuVariants) {
      const setting = (maxTokens: number, numThreads: number): Setting => {
        return { path: join(folder, `${name}.gguf`), cpuVariant, numThreads, maxTokens, kvType };
      };
      let whole: Float32Array;
      const same = (actual: Float32Array, from: number, what: string) => {
        const to = from + actual.length / tinyVocabSize;
        const expected = rowsOf(whole, from, to);
        expectSameBits(actual, expected, tinyVocabSize, `${name} ${cpuVariant} ${what}`);
      };

      test(`${cpuVariant}: whole, and as other CPUs compute it`, () => {
        using runner = new Runner(setting(len, 1));
        whole = runner.sequence(prompt, inOrder, len);
        if (whole.some((value) => !Number.isFinite(value))) throw new Error("not finite");
        firstBits ??= whole;
        same(firstBits, 0, "against the first variant");
      });

      test(`${cpuVariant}: threads and chunks`, () => {
        for (const [chunkLen, numThreads] of [
          [1, 1],
          [7, 2],
          [10, 3],
          [32, 3],
          [512, 2],
        ] as const) {
          using runner = new Runner(setting(chunkLen, numThreads));
          const logits = runner.sequence(prompt, inOrder, chunkLen);
          same(logits, 0, `chunks of ${chunkLen}, ${numThreads} threads`);
        }
      });

      test(`${cpuVariant}: tunings, changed between steps`, () => {
        using runner = new Runner(setting(15, 2));
        for (const tuning of [...extremeTunings, defaultTuning]) {
          runner.tune(tuning);
          for (const chunkLen of [1, 15]) {
            const part = prompt.slice(0, 30);
            const logits = runner.sequence(part, inOrder, chunkLen);
            same(logits, 0, `chunks of ${chunkLen}, ${JSON.stringify(tuning)}`);
          }
        }
      });

      test(`${cpuVariant}: places of blocks`, () => {
        const blocks = random.shuffled(numSequences * blocksPerSequence);
        using runner = new Runner(setting(64, 2));
        same(runner.sequence(prompt, blocks, 64), 0, `blocks ${blocks.slice(0, 6)} …`);
      });

      test(`${cpuVariant}: batch mates`, () => {
        using runner = new Runner(setting(140, 2));
        const blocks = random.shuffled(numSequences * blocksPerSequence);
        const ownBlocks = (s: number, used: number) =>
          blocks.slice(s * blocksPerSequence, s * blocksPerSequence + Math.ceil(used / blockSize));
        let start = 0;
        for (const count of [25, 1, 12, 1]) {
          // The prompt's chunk stands between the others', which begin again each time.
          const parts = others.map((tokenIds, s) => {
            return { tokenIds, start: 0, blockIds: ownBlocks(s + 1, tokenIds.length) };
          });
          const tokenIds = prompt.slice(start, start + count);
          parts.splice(1, 0, { tokenIds, start, blockIds: ownBlocks(0, start + count) });
          const logits = runner.step(parts);
          const before = others[0]!.length;
          same(rowsOf(logits, before, before + count), start, `batched at ${start}`);
          start += count;
        }
      });

      test(`${cpuVariant}: prefix from the cache`, () => {
        using runner = new Runner(setting(64, 2));
        const shared = 2 * blockSize;
        const first = random.shuffled(numSequences * blocksPerSequence);
        const second = [...first.slice(0, 2), ...first.slice(blocksPerSequence + 2)];
        // Another continuation fills the cache, then the prompt takes its first blocks.
        runner.sequence([...prompt.slice(0, shared), ...others[0]!], first, 64);
        same(runner.sequence(prompt, second, 64, shared), shared, "prefix of two blocks");
      });
    }
  });
}
