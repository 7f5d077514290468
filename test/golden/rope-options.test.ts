// The user's rope options against llama.cpp: perplexities of one text as its llama-perplexity
// prints them, with the same options. Families whose layers with a window keep their own rope, and
// latent attention, whose scores follow the stretch, are told apart by them.
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openModelText } from "../../src/engine/model-text.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { measurePerplexity } from "../../src/engine/perplexity.ts";
import type { RopeOptions } from "../../src/models/rope-options.ts";
import { goldenFolder } from "../golden-folder.ts";

const golden = goldenFolder("golden rope options");

/** Of llama-perplexity -c 256 --chunks 1 -ctk f32 -ctv f32 -fa off. */
const cases: readonly (readonly [string, RopeOptions, number])[] = [
  [
    "llama2",
    yarn({ ropeScale: 3, yarnExtFactor: 0.5, yarnBetaFast: 8, yarnBetaSlow: 2 }),
    3524.0929,
  ],
  ["gpt-oss", {}, 3942.5166],
  ["gpt-oss", { ropeScaling: "none" }, 3862.176],
  ["gpt-oss", { ropeScaling: "linear", ropeScale: 4 }, 3235.5976],
  ["gpt-oss", { ropeScale: 6, yarnOrigCtx: 48 }, 3917.0871],
  ["gpt-oss", { ropeScale: 3, yarnExtFactor: 0, yarnAttnFactor: 1.3 }, 3539.2152],
  ["gpt-oss", { ropeTheta: 33333 }, 4880.6701],
  ["gemma2", yarn({ ropeScale: 6 }), 1213.572],
  ["gemma2", { ropeTheta: 33333 }, 1285.7577],
  ["gemma3", { ropeScale: 4 }, 91723.8817],
  ["gemma3", yarn({ ropeScale: 0.5 }), 96480.4507],
  ["gemma3", yarn({ ropeScale: 3, yarnExtFactor: 0, yarnAttnFactor: 1.3 }), 92514.2367],
  ["gemma3-linear-rope", { ropeScaling: "none" }, 31582.3779],
  ["gemma3-linear-rope", yarn({}), 30281.925],
  ["olmo3", { ropeScale: 4 }, 1407.8002],
  ["olmo3", { ropeTheta: 33333 }, 1302.8076],
  ["deepseek2-v3", { ropeScaling: "linear", ropeScale: 4 }, 2569.2395],
  ["deepseek2-v3", yarn({ ropeScale: 0.5 }), 1588.9156],
  ["deepseek2-v3", { ropeScale: 3, yarnExtFactor: 0, yarnAttnFactor: 1.3 }, 3975.8255],
  ["mistral4", { ropeScaling: "linear" }, 2936.1763],
  ["mistral4", { ropeScale: 6, yarnOrigCtx: 48 }, 3504.2496],
  ["mistral3", { ropeScale: 6, yarnOrigCtx: 48 }, 2941.6967],
  ["phi3-longrope", yarn({ ropeScale: 6, yarnOrigCtx: 300 }), 12831.8667],
];

function yarn(options: RopeOptions): RopeOptions {
  return { ...options, ropeScaling: "yarn" };
}

const text = Array.from({ length: 120 }, (_, i) => `${i * i} over ${i}`).join(" ");

function perplexity(name: string, rope: RopeOptions): number {
  const path = join(golden!, "architectures", `${name}.gguf`);
  const { tokenizer } = openModelText(path);
  const options = { ...defaultModelOptions, kvTypeK: "f32", kvTypeV: "f32", rope } as const;
  const tokenIds = tokenizer.encode(text, { parseSpecial: false });
  const { bosId } = tokenizer.specialTokens;
  const chunks = { chunkLen: 256, numChunks: 1, bosId, saveTo: undefined, base: undefined };
  const steps = measurePerplexity(path, options, tokenIds, chunks);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value.perplexity.value;
  }
}

describe.skipIf(golden === undefined)("rope options", () => {
  for (const [name, rope, wanted] of cases) {
    test(`${name} ${JSON.stringify(rope)}`, () => {
      // The reference takes GELU from a table in half precision.
      const tolerance = name.startsWith("gemma") ? 2e-4 : 1e-5;
      expect(Math.abs(perplexity(name, rope) / wanted - 1)).toBeLessThan(tolerance);
    });
  }

  test("Llama 4 rotates only layers that see chunks: options are refused", () => {
    expect(() => perplexity("llama4", { ropeScale: 2 })).toThrow("rope change nothing");
    expect(perplexity("llama4", {})).toBeGreaterThan(1);
  });
});
