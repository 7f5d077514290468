// Every family of model folders: the golden models in Hugging Face's form give the same logits.
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenFolder } from "../golden-folder.ts";
import { folderCases, longRope, type OwnConfig } from "./folder-cases.ts";
import { type Matrix, makeFolder } from "./folder-fixture.ts";
import { logitsOf, nmse, readFloats } from "./reference-logits.ts";

const golden = goldenFolder("golden folder families");
const models = golden === undefined ? undefined : join(golden, "architectures");
const folders = mkdtempSync(join(tmpdir(), "tinfer-families-"));
afterAll(() => rmSync(folders, { recursive: true }));

type Change = Parameters<typeof makeFolder>[3];

function check(name: string, own: OwnConfig, change?: Change): void {
  const path = join(models!, `${name}.gguf`);
  const folder = join(folders, name);
  makeFolder(path, folder, own, change);
  const { tokenIds, contextSize } = JSON.parse(readFileSync(join(models!, `${name}.json`), "utf8"));
  const options = { backend: "cpu", contextLen: contextSize };
  const logits = logitsOf(folder, tokenIds, tokenIds.length, options);
  const reference = readFloats(join(models!, `${name}.logits.f32`));
  // The last ones, where a file begins at a later position.
  expect(nmse(logits.subarray(logits.length - reference.length), reference)).toBeLessThan(1e-6);
}

/** Llama 4's experts as quantisers of folders store them: a matrix each, outputs as rows. */
function expertsApart(tensors: Map<string, Matrix>): void {
  for (const [name, { shape, values }] of [...tensors]) {
    const [, owner, part] = /^(.*\.experts)\.(gate_up_proj|down_proj)$/.exec(name) ?? [];
    if (part === undefined) continue;
    tensors.delete(name);
    const [count, inputs, outputs] = shape as [number, number, number];
    const parts = part === "down_proj" ? [part] : ["gate_proj", "up_proj"];
    const height = outputs / parts.length;
    for (let expert = 0; expert < count; expert++) {
      parts.forEach((own, which) => {
        const matrix = Float32Array.from({ length: height * inputs }, (_, i) => {
          const output = which * height + Math.floor(i / inputs);
          return values[(expert * inputs + (i % inputs)) * outputs + output]!;
        });
        const to = `${owner}.${expert}.${own}.weight`;
        tensors.set(to, { shape: [height, inputs], values: matrix });
      });
    }
  }
}

if (models !== undefined) {
  describe("logits of", () => {
    for (const [name, own] of Object.entries(folderCases)) {
      if (!existsSync(join(models, `${name}.gguf`))) throw new Error(`${name} is not there`);
      test(name, () => check(name, own));
    }
    test("llama4, a matrix per expert", () => {
      check("llama4", folderCases["llama4"]!, expertsApart);
    });
    for (const [name, type] of [
      ["phi3-longrope", "phi3"],
      ["phimoe", "phimoe"],
    ] as const) {
      const path = join(models, `${name}.gguf`);
      test(name, () => check(name, { model_type: type, ...longRope(path) }));
    }
  });
}
