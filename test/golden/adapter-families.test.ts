// PEFT adapters on every family: on the folder and on the GGUF file the same logits as the folder
// that they are merged into.
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAdapters } from "../../src/engine/adapter-choice.ts";
import { openForRunning } from "../../src/engine/open-model.ts";
import {
  readTensorFloats,
  readTensorRows,
  sumTensorRows,
} from "../../src/weights/tensor-content.ts";
import { goldenFolder } from "../golden-folder.ts";
import { Random } from "../kernel/random.ts";
import { folderCases, longRope, type OwnConfig } from "./folder-cases.ts";
import { type Matrix, makeFolder } from "./folder-fixture.ts";
import { mergePeft, type PeftOptions, peftAdapter, saveAdapter } from "./peft-fixture.ts";
import { logitsOf, nmse } from "./reference-logits.ts";

setDefaultTimeout(120_000);

const golden = goldenFolder("adapters of families");
const models = golden === undefined ? undefined : join(golden, "architectures");
const folders = mkdtempSync(join(tmpdir(), "tinfer-adapters-"));
afterAll(() => rmSync(folders, { recursive: true }));

const scale = 0.7;

function check(name: string, own: OwnConfig, options: Omit<PeftOptions, "alpha">): void {
  const path = join(models!, `${name}.gguf`);
  const base = join(folders, `${name}-base`);
  let tensors = new Map<string, Matrix>();
  makeFolder(path, base, own, (all) => {
    tensors = all;
  });
  const fanInFanOut = own.model_type === "gpt2";
  const adapter = peftAdapter(tensors, new Random(name), { alpha: 3, fanInFanOut, ...options });
  const folder = saveAdapter(join(folders, `${name}-adapter`), adapter);
  const merged = join(folders, `${name}-merged`);
  makeFolder(path, merged, own, (all) => mergePeft(all, adapter, scale));
  const { tokenIds, contextSize } = JSON.parse(readFileSync(join(models!, `${name}.json`), "utf8"));
  const ids = tokenIds.slice(0, 24);
  const options_ = { contextLen: contextSize };
  const adapters = parseAdapters([`${folder}=${scale}`]);
  for (const backend of ["cpu", "reference"]) {
    const wanted = logitsOf(merged, ids, ids.length, { backend, ...options_ });
    const alone = logitsOf(base, ids, ids.length, { backend, ...options_ });
    expect(nmse(alone, wanted)).toBeGreaterThan(0.01);
    for (const model of [base, path]) {
      const found = logitsOf(model, ids, 16, { backend, ...options_, adapters });
      expect(nmse(found, wanted)).toBeLessThan(1e-8);
    }
  }
}

if (models !== undefined) {
  test("lengths are those of weights that are quantised while loading", () => {
    const base = join(folders, "quantised");
    makeFolder(join(models, "llama2.gguf"), base, folderCases["llama2"]!);
    for (const type of [undefined, "q8_0", "q4_0"]) {
      const header = openForRunning(base, type);
      const matrices = [...header.tensors.values()].filter(({ shape }) => shape.length === 2);
      expect(matrices.some((tensor) => tensor.type === (type ?? "f32"))).toBe(true);
      for (const tensor of matrices) {
        const [rows, cols] = tensor.shape as [number, number];
        const whole = readTensorFloats(header, tensor);
        for (const [first, count] of [
          [0, rows],
          [rows - 5, 3],
        ] as const) {
          const part = { tensor, first, count };
          const values = whole.subarray(first * cols, (first + count) * cols);
          expect(readTensorRows(header, part)).toEqual(values.slice());
          const squares = sumTensorRows(header, part, new Float32Array(0), 2);
          squares.forEach((square, row) => {
            const own = values.subarray(row * cols, (row + 1) * cols);
            const sum = own.reduce((total, value) => total + value * value, 0);
            expect(square / sum).toBeCloseTo(1, 5);
          });
        }
      }
    }
  });

  const long = { "phi3-longrope": "phi3", phimoe: "phimoe" };
  const cases: Record<string, OwnConfig> = { ...folderCases };
  for (const [name, type] of Object.entries(long)) {
    cases[name] = { model_type: type, ...longRope(join(models, `${name}.gguf`)) };
  }
  // Matrices of experts that are square here do not tell what their factors are.
  const isSquareStack = /experts\.gate_up_proj$|moe\.input_linear\.weight$/;
  for (const [name, own] of Object.entries(cases)) {
    const isTurned = /^(llama4|gpt-oss)$/.test(name);
    const isSquare = (tensor: string) => !isTurned && isSquareStack.test(tensor);
    describe(name, () => {
      test("LoRA", () => check(name, own, { wants: (tensor) => !isSquare(tensor) }));
      const alphas = { "q_proj|c_attn|qkv_proj": 5, "layers\\.1\\..*": 1.5 };
      test("rank-stabilised, with alphas by module", () => {
        check(name, own, { useRslora: true, alphas, wants: (tensor) => !isSquare(tensor) });
      });
      test("DoRA", () => {
        const isParameter = (tensor: string) => /experts\.\w+$|moe\.\w+_linear/.test(tensor);
        check(name, own, { useDora: true, wants: (tensor) => !isParameter(tensor) });
      });
    });
  }
}
