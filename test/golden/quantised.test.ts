// A small real model in several weight types: exact weights on the reference backend, and on the
// CPU within the noise that 8-bit activations make by themselves.
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cpuReport } from "../../src/native/cpu-report.ts";
import { goldenFolder } from "../golden-folder.ts";
import { logitsOf, nmse, readFloats } from "./reference-logits.ts";

const golden = goldenFolder("golden quantised models");
const folder = golden === undefined ? undefined : join(golden, "quantised");
const index = folder === undefined ? undefined : readIndex(folder);

interface Entry {
  readonly nmseVsF32: number;
  readonly nmseVsDequantisedWeights: number;
}

function readIndex(path: string): { tokenIds: number[]; models: Record<string, Entry> } {
  return JSON.parse(readFileSync(join(path, "index.json"), "utf8"));
}

for (const [type, entry] of Object.entries(index?.models ?? {})) {
  describe(type, () => {
    const file = (suffix: string) => join(folder!, `656k-pad256-${type}${suffix}`);
    const run = (backend: string, cpuVariant: string | undefined, chunkLen: number) =>
      logitsOf(file(".gguf"), index!.tokenIds, chunkLen, { backend, cpuVariant });

    test("reference", () => {
      const dequantised = readFloats(file(".dequantised.logits.f32"));
      expect(nmse(run("reference", undefined, 512), dequantised)).toBeLessThan(1e-6);
    });

    for (const variant of cpuReport().variants) {
      test(`cpu ${variant}`, () => {
        const logits = run("cpu", variant, 512);
        const noise = nmse(logits, readFloats(file(".logits.f32")));
        expect(noise).toBeLessThan(3 * entry.nmseVsDequantisedWeights);
        for (const chunkLen of [1, 7]) {
          const again = run("cpu", variant, chunkLen);
          expect(Buffer.from(again.buffer).equals(Buffer.from(logits.buffer))).toBe(true);
        }
      });
    }
  });
}

test("the golden folder has cases", () => {
  if (index === undefined) return;
  expect(Object.keys(index.models)).toContain("Q4_K_M");
});
