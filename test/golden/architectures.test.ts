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
  /** Logits from position `firstPosition` on. */
  readonly reference: Float32Array;
  readonly firstPosition: number;
  /** Set where the reference itself rounds activations: what an exact engine gets, and how far
   * the two are apart, over all positions and in the middle of them. */
  readonly rounded: Rounded | undefined;
}

interface Rounded {
  readonly exact: Float32Array;
  readonly nmse: number;
  readonly medianNmse: number;
}

/** Prompts longer than this take the reference backend too long, and token by token all. */
const longPrompt = 1024;

function readCases(): Case[] {
  if (folder === undefined) return [];
  const known = knownArchitectures();
  return readdirSync(folder)
    .filter((file) => file.endsWith(".gguf"))
    .map((file) => file.replace(".gguf", ""))
    .flatMap((name) => {
      const path = join(folder, `${name}.gguf`);
      const facts = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
      // Encoders have no logits: embeddings.test.ts.
      if (!known.includes(facts.architecture) || "poolingType" in facts) return [];
      // Some models compute something else for another context size.
      const first = { file: `${name}.logits.f32`, contextSize: facts.contextSize };
      return [first, ...(facts.variants ?? [])].map(({ file, contextSize }): Case => {
        const reference = readFloats(join(folder, file));
        const { tokenIds, firstPosition = 0 } = facts;
        const rounded = readRounded(join(folder, name), facts);
        return { name, path, tokenIds, contextSize, reference, firstPosition, rounded };
      });
    });
}

function readRounded(path: string, facts: Record<string, number>): Rounded | undefined {
  const { nmseVsDequantisedWeights, medianPositionNmseVsDequantisedWeights } = facts;
  if (nmseVsDequantisedWeights === undefined) return undefined;
  return {
    exact: readFloats(`${path}.dequantised.logits.f32`),
    nmse: nmseVsDequantisedWeights,
    medianNmse: medianPositionNmseVsDequantisedWeights!,
  };
}

/** How far logits `[positions, width]` are apart at the middle one of their positions. */
function medianNmse(a: Float32Array, b: Float32Array, width: number): number {
  const errors = Array.from({ length: b.length / width }, (_, position) => {
    const at = position * width;
    return nmse(a.subarray(at, at + width), b.subarray(at, at + width));
  });
  return errors.toSorted((x, y) => x - y)[errors.length >> 1]!;
}

function expectClose(whole: Float32Array, item: Case, backend: string): void {
  const { tokenIds, firstPosition, reference, rounded } = item;
  const width = reference.length / (tokenIds.length - firstPosition);
  const ours = whole.subarray(firstPosition * width);
  if (rounded === undefined) {
    expect(nmse(ours, reference)).toBeLessThan(mostNmse);
  } else if (backend === "reference") {
    expect(nmse(ours, rounded.exact)).toBeLessThan(mostNmse);
  } else {
    // Both round activations, each its own way; a few tokens go to another expert.
    expect(nmse(ours, reference)).toBeLessThan(3 * rounded.nmse);
    expect(medianNmse(ours, reference, width)).toBeLessThan(rounded.medianNmse);
  }
}

const executors = [
  { backend: "reference", cpuVariant: undefined },
  ...cpuReport().variants.map((cpuVariant) => ({ backend: "cpu", cpuVariant })),
];

for (const item of readCases()) {
  const { name, path, tokenIds, contextSize } = item;
  const isLong = tokenIds.length > longPrompt;
  describe(`${name} in ${contextSize}`, () => {
    let first: Float32Array | undefined;
    for (const { backend, cpuVariant } of executors) {
      if (isLong && backend === "reference") continue;
      test(`${backend} ${cpuVariant ?? ""}`, () => {
        const options = { backend, cpuVariant, contextLen: contextSize };
        const whole = logitsOf(path, tokenIds, tokenIds.length, options);
        expectClose(whole, item, backend);
        if (backend === "reference") return;
        // Every variant computes the same bits.
        first ??= whole;
        expect(Buffer.from(whole.buffer).equals(Buffer.from(first.buffer))).toBe(true);
        // How a prompt is cut, and how many threads there are, does not change one bit.
        for (const [chunkLen, numThreads] of [
          [isLong ? 1000 : 1, 1],
          [isLong ? 97 : 7, 3],
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
