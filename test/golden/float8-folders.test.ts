// Model folders in 8-bit floats: the logits have the bits of the same weights in F32, of which none
// are made, but where a matrix is needed transposed; and the text is the same.
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openForRunning, openModel } from "../../src/engine/open-model.ts";
import { isFloat8 } from "../../src/weights/float8.ts";
import { isInFile, withScales } from "../../src/weights/model-header.ts";
import { tinferJson } from "../cli/spawn.ts";
import { goldenFolder } from "../golden-folder.ts";
import { makeFloat8Folders, type ScaleKind, scaleKinds } from "./float8-fixture.ts";
import { folderCases, type OwnConfig } from "./folder-cases.ts";
import { makeFolder } from "./folder-fixture.ts";
import { logitsOf, nmse } from "./reference-logits.ts";

setDefaultTimeout(180_000);

const golden = goldenFolder("golden folders in 8-bit floats");
const folders = mkdtempSync(join(tmpdir(), "tinfer-float8-folders-"));
afterAll(() => rmSync(folders, { recursive: true }));

const kinds = Object.keys(scaleKinds) as ScaleKind[];
const mostNmse = 1e-6;

function expectSameLogits(float8: string, plain: string, tokenIds: readonly number[]): void {
  const options = { backend: "cpu", numThreads: 2 };
  const expected = logitsOf(plain, tokenIds, tokenIds.length, options);
  const ways = [
    { chunkLen: tokenIds.length, load: "lazy" },
    // Copied into memory: codes and scales lie elsewhere then.
    { chunkLen: 3, load: "eager" },
  ] as const;
  for (const { chunkLen, load } of ways) {
    const own = logitsOf(float8, tokenIds, chunkLen, { ...options, load });
    expect(Buffer.from(own.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
  }
}

/** Keys of latent attention are needed transposed, experts of Llama 4 are stored so. */
const mayBeExpanded = /attn_k_b|_exps\.weight$/;
/** Rotary pairs that GGUF has elsewhere, values of latent attention, Granite's gate on its up. */
const mayBeCopied = /(attn_(q|k|v_b)|ffn_(gate|up)_(exps|shexp))\.weight$/;

/** Names of the tensors that were projections and are not used where the file has them. */
function checkPlaces(folder: string): void {
  const { tensors } = openForRunning(folder);
  const all = [...withScales(tensors.values())];
  const copied = all.filter((tensor) => isFloat8(tensor.type) && !isInFile(tensor));
  for (const { name } of copied) expect(name).toMatch(mayBeCopied);
  expect(all.some((tensor) => isFloat8(tensor.type) && isInFile(tensor))).toBe(true);
  for (const { name, type, shape } of tensors.values()) {
    const isMatrix = shape.length >= 2 && /(attn|ffn)_(?!gate_inp|.*norm)/.test(name);
    if (isMatrix && !isFloat8(type)) expect(name).toMatch(mayBeExpanded);
  }
}

function checkFamily(name: string, own: OwnConfig, kind: ScaleKind): void {
  const path = join(golden!, "architectures", name);
  const folder = join(folders, name);
  makeFolder(`${path}.gguf`, folder, own);
  const { float8, plain } = makeFloat8Folders(folder, join(folders, "float8", name), kind);
  const { tokenIds } = JSON.parse(readFileSync(`${path}.json`, "utf8")) as { tokenIds: number[] };
  checkPlaces(float8);
  expectSameLogits(float8, plain, tokenIds.slice(0, 40));
}

if (golden !== undefined) {
  describe("logits of", () => {
    const families = [
      ...["llama2", "mixtral", "qwen3", "qwen3moe", "deepseek2-v3", "deepseek2-lite", "mistral4"],
      ...["llama4", "gemma3", "granitemoe-shared"],
    ];
    families.forEach((name, index) => {
      const kind = kinds[index % kinds.length]!;
      test(`${name}, scales of ${kind}`, () => checkFamily(name, folderCases[name]!, kind));
    });
  });

  describe("a real model", () => {
    const source = join(golden, "hf", "llama-bf16");
    const facts = JSON.parse(readFileSync(`${source}.json`, "utf8"));
    const greedy = JSON.parse(readFileSync(`${source}.greedy.json`, "utf8"));
    const prompts = greedy.slice(0, 3).map(({ prompt }: { prompt: string }) => prompt);

    for (const kind of kinds) {
      test(`scales of ${kind}: logits, text, and what is written of it`, async () => {
        const { float8, plain } = makeFloat8Folders(source, join(folders, "real"), kind);
        const { tokenIds } = facts as { tokenIds: number[] };
        expectSameLogits(float8, plain, tokenIds);
        const count = tokenIds.length;
        const wanted = logitsOf(plain, tokenIds, count, { backend: "reference" });
        for (const backend of ["reference", "cpu"]) {
          const logits = logitsOf(float8, tokenIds, count, { backend });
          expect(nmse(logits, wanted)).toBeLessThan(mostNmse);
        }
        const flags = ["--raw", "--temperature", "0", "--max-tokens", "60", "--kv-type", "f32"];
        for (const prompt of prompts) {
          const texts = [float8, plain].map(async (path) => {
            const { text } = await tinferJson<{ text: string }>(["run", path, prompt, ...flags]);
            return text;
          });
          const [own, expected] = await Promise.all(texts);
          expect(own).toBe(expected!);
        }
        await checkWritten(float8, plain, tokenIds, kind);
      });
    }
  });
}

/** As a GGUF file in F32 and quantised, on the way or while loading. */
async function checkWritten(
  float8: string,
  plain: string,
  tokenIds: readonly number[],
  kind: ScaleKind,
): Promise<void> {
  const output = (name: string) => join(folders, `${kind}-${name}.gguf`);
  await tinferJson(["convert", float8, output("auto"), "--json"]);
  const types = [...openModel(output("auto")).tensors.values()].map(({ type }) => type);
  expect(new Set(types)).toEqual(new Set(["f32", "bf16"]));
  await tinferJson(["convert", float8, output("f32"), "--type", "f32", "--json"]);
  expectSameLogits(output("f32"), plain, tokenIds);
  await tinferJson(["quantize", float8, output("q8_0"), "q8_0", "--json"]);
  const options = { backend: "cpu", numThreads: 1 };
  const count = tokenIds.length;
  const file = logitsOf(output("q8_0"), tokenIds, count, options);
  const loaded = logitsOf(float8, tokenIds, count, { ...options, quantize: "q8_0" });
  expect(Buffer.from(loaded.buffer).equals(Buffer.from(file.buffer))).toBe(true);
}
