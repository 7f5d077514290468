// Encoders against the stored reference, on the reference backend and on every CPU variant: hidden
// states, pooled vectors, and embeddings of texts from tokenizer to unit length.
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Engine } from "../../src/engine/engine.ts";
import { computeRows } from "../../src/engine/logits.ts";
import { openModelText } from "../../src/engine/model-text.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { normalizeRows, type Pooling, poolingOf } from "../../src/engine/pooling.ts";
import { embedTexts } from "../../src/engine/text-embedding.ts";
import { cpuReport } from "../../src/native/cpu-report.ts";
import { goldenFolder } from "../golden-folder.ts";
import { nmse, readFloats } from "./reference-logits.ts";

const mostNmse = 1e-6;
const leastCosine = 0.999999;
const golden = goldenFolder("golden embeddings");
const folder = golden === undefined ? undefined : join(golden, "architectures");

const names =
  folder === undefined
    ? []
    : readdirSync(folder)
        .filter((file) => file.endsWith(".embd-none.f32"))
        .map((file) => file.replace(".embd-none.f32", ""));

const executors = [
  { backend: "reference", cpuVariant: undefined },
  ...cpuReport().variants.map((cpuVariant) => ({ backend: "cpu", cpuVariant })),
];

const cosine = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < b.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return dot / Math.sqrt(aa * bb);
};

for (const name of names) {
  const file = (suffix: string) => join(folder!, `${name}${suffix}`);
  const path = file(".gguf");
  const { tokenIds, poolingType } = JSON.parse(readFileSync(file(".json"), "utf8"));
  const prompt = Int32Array.from(tokenIds as number[]);

  for (const executor of executors) {
    const options = { ...defaultModelOptions, ...executor };
    describe(`${name} ${executor.backend} ${executor.cpuVariant ?? ""}`, () => {
      test("hidden states", () => {
        const reference = readFloats(file(".embd-none.f32"));
        let numRows = 0;
        for (const { rows, values } of computeRows(path, options, prompt, "hidden")) {
          expect(nmse(values, reference)).toBeLessThan(mostNmse);
          numRows += rows;
        }
        expect(numRows).toBe(prompt.length);
      });

      test("pooled", async () => {
        await using engine = new Engine(path, options);
        expect(engine.facts.pooling).toBe(poolingType);
        for (const pooling of ["none", "mean", "cls"] as const) {
          const [vector] = await engine.embed([prompt], pooling);
          const reference = readFloats(file(`.embd-${pooling}.f32`));
          expect(nmse(vector!, reference)).toBeLessThan(mostNmse);
        }
      });

      test("texts, alone and side by side", async () => {
        const { tokenizer } = openModelText(path);
        const texts: { text: string; tokenIds: number[]; embedding: number[] }[] = JSON.parse(
          readFileSync(file(".embeddings.json"), "utf8"),
        );
        const prompts = texts.map(({ text }) => tokenizer.encode(text));
        expect(prompts.map((ids) => [...ids])).toEqual(texts.map((item) => item.tokenIds));
        await using engine = new Engine(path, options);
        const pooling: Pooling = poolingOf(engine.facts);
        const vectors: Float32Array[] = [];
        for await (const vector of embedTexts(engine, prompts, pooling)) vectors.push(vector);
        for (const [index, { embedding }] of texts.entries()) {
          const vector = normalizeRows(vectors[index]!, embedding.length);
          expect(cosine(vector, embedding)).toBeGreaterThan(leastCosine);
          const [alone] = await engine.embed([prompts[index]!], pooling);
          expect(alone).toEqual(vectors[index]!);
        }
      });
    });
  }
}

test("the golden folder has encoders", () => {
  if (folder === undefined) return;
  expect(names).toEqual(["bert-cls", "bert-mean"]);
});
