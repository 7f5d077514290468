// Logits of every family that is registered against the stored reference, on the reference
// backend and on every CPU variant, with the prompt in one step, in chunks, and token by token.
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { knownArchitectures } from "../../src/models/registry.ts";
import { cpuReport } from "../../src/native/cpu-report.ts";
import { goldenFolder } from "../golden-folder.ts";
import { logitsOf, nmse, readFloats } from "./reference-logits.ts";

const mostNmse = 1e-6;
const golden = goldenFolder("golden architectures");
const folder = golden === undefined ? undefined : join(golden, "architectures");

interface Case {
  readonly name: string;
  readonly path: string;
  readonly tokenIds: number[];
  readonly contextSize: number;
  readonly reference: Float32Array;
}

/**
 * Positions where two experts' logits are less than f32 rounding apart, and the CPU variants whose
 * rounding takes the other one: what follows in the sequence cannot be compared.
 */
const nearTies: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  // The exact gap is 5.3e-7 at logits of 1.1. Without fused multiply-add it is -1.2e-7.
  mixtral: { v2: 14 },
};

function readCases(): Case[] {
  if (folder === undefined) return [];
  const known = knownArchitectures();
  return readdirSync(folder)
    .filter((file) => file.endsWith(".gguf"))
    .map((file) => file.replace(".gguf", ""))
    .flatMap((name) => {
      const path = join(folder, `${name}.gguf`);
      const facts = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
      if (!known.includes(facts.architecture)) return [];
      // Some models compute something else for another context size.
      const first = { file: `${name}.logits.f32`, contextSize: facts.contextSize };
      return [first, ...(facts.variants ?? [])].map(({ file, contextSize }): Case => {
        const reference = readFloats(join(folder, file));
        return { name, path, tokenIds: facts.tokenIds, contextSize, reference };
      });
    });
}

const executors = [
  { backend: "reference", cpuVariant: undefined },
  ...cpuReport().variants.map((cpuVariant) => ({ backend: "cpu", cpuVariant })),
];

for (const { name, path, tokenIds, contextSize, reference } of readCases()) {
  describe(`${name} in ${contextSize}`, () => {
    for (const { backend, cpuVariant } of executors) {
      test(`${backend} ${cpuVariant ?? ""}`, () => {
        const options = { backend, cpuVariant, contextLen: contextSize };
        const whole = logitsOf(path, tokenIds, tokenIds.length, options);
        const end = nearTies[name]?.[cpuVariant ?? ""] ?? tokenIds.length;
        const compared = (end * reference.length) / tokenIds.length;
        const error = nmse(whole.subarray(0, compared), reference.subarray(0, compared));
        expect(error).toBeLessThan(mostNmse);
        // How a prompt is cut, and how many threads there are, does not change one bit.
        for (const [chunkLen, numThreads] of [
          [1, 1],
          [7, 3],
          [32, 2],
        ] as const) {
          const again = logitsOf(path, tokenIds, chunkLen, { ...options, numThreads });
          expect(Buffer.from(again.buffer).equals(Buffer.from(whole.buffer))).toBe(true);
        }
      });
    }
  });
}

test("the golden folder has cases", () => {
  if (folder === undefined) return;
  expect(readCases().map((item) => item.name)).toContain("llama2");
});
