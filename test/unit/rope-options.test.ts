// The user's rope options over a model's own, and what is said of prompts that do not fit.
import { expect, test } from "bun:test";
import {
  type ContextFacts,
  checkPrompt,
  contextAdvice,
  contextWarning,
} from "../../src/engine/context-limits.ts";
import { type ModelConfig, readModelConfig } from "../../src/models/model-config.ts";
import { ropeTable } from "../../src/models/rope.ts";
import { type RopeOptions, withRopeOptions } from "../../src/models/rope-options.ts";
import type { MetadataValue } from "../../src/weights/metadata.ts";

function config(extra: Record<string, MetadataValue> = {}): ModelConfig {
  const base = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
  };
  return readModelConfig(new Map(Object.entries({ ...base, ...extra })));
}

const yarnFile = {
  "llama.context_length": 8192,
  "llama.rope.scaling.type": "yarn",
  "llama.rope.scaling.factor": 4,
  "llama.rope.scaling.original_context_length": 2048,
};

test("without options nothing changes", () => {
  const own = config(yarnFile);
  expect(withRopeOptions(own, {})).toEqual(own);
  expect(withRopeOptions(own, { ropeScale: undefined })).toEqual(own);
});

test("the same scaling by file and by option makes the same frequencies", () => {
  const options = { ropeScaling: "yarn", ropeScale: 4, yarnOrigCtx: 2048 } as const;
  expect(ropeTable(withRopeOptions(config(), options))).toEqual(ropeTable(config(yarnFile)));
  const linear = { "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.5 };
  const stretched = withRopeOptions(config(), { ropeScale: 2.5 });
  expect(ropeTable(stretched)).toEqual(ropeTable(config(linear)));
  const none = withRopeOptions(config(yarnFile), { ropeScaling: "none" });
  expect(ropeTable(none)).toEqual(ropeTable(config()));
  const theta = withRopeOptions(config(), { ropeTheta: 5e5 });
  expect(ropeTable(theta)).toEqual(ropeTable(config({ "llama.rope.freq_base": 5e5 })));
});

test("each YaRN parameter takes the place of the file's", () => {
  const before = ropeTable(config(yarnFile));
  const changes: RopeOptions[] = [
    { yarnOrigCtx: 512 },
    { yarnExtFactor: 0.5 },
    { yarnAttnFactor: 1.5 },
    { yarnBetaFast: 8 },
    { yarnBetaSlow: 2 },
  ];
  for (const change of changes) {
    expect(ropeTable(withRopeOptions(config(yarnFile), change))).not.toEqual(before);
  }
  const half = ropeTable(withRopeOptions(config(yarnFile), { yarnAttnFactor: 0.5 }));
  expect(half.magnitude).toBeCloseTo(before.magnitude / 2, 12);
});

test("layers that are stretched by another factor have the temperature of their own", () => {
  const whole = config(yarnFile);
  expect(ropeTable(whole, undefined, 4)).toEqual(ropeTable(whole));
  const layer = ropeTable(whole, undefined, 32);
  expect(layer.magnitude).toBeCloseTo(1 + 0.1 * Math.log(32), 12);
  const factor = { ...yarnFile, "llama.rope.scaling.factor": 32 };
  expect(layer.frequencies).toEqual(ropeTable(config(factor)).frequencies);
  // Even where the model as a whole is not stretched at all.
  const none = withRopeOptions(whole, { ropeScaling: "none" });
  const [first] = ropeTable(none, undefined, 32).frequencies;
  expect(first).toBeCloseTo(1 / 32, 7);
  expect(ropeTable(none, undefined, 32).magnitude).toBe(1);
});

test("the file's own rope stays known, and YaRN starts from the file's context", () => {
  const linear = { "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2 };
  const changed = withRopeOptions(config(linear), { ropeScaling: "yarn", ropeTheta: 77 });
  expect(changed.ownRope).toEqual(config(linear).ownRope);
  expect(changed.ownRope.theta).toBe(10000);
  expect(changed.ropeScaling.originalContextLen).toBe(2048);
});

test("the context that scaling gives", () => {
  const lengthOf = (options: RopeOptions, extra = {}) =>
    withRopeOptions(config(extra), options).scaledContextLen;
  expect(lengthOf({ ropeScale: 4 })).toBe(8192);
  expect(lengthOf({ ropeScaling: "yarn", ropeScale: 2, yarnOrigCtx: 1000 })).toBe(2000);
  expect(lengthOf({ ropeTheta: 1e6 })).toBe(2048);
  expect(lengthOf({ ropeScale: 8 }, yarnFile)).toBe(16384);
  expect(lengthOf({ ropeScaling: "none" }, yarnFile)).toBe(2048);
  const linear = { "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2 };
  expect(lengthOf({ ropeScale: 4 }, linear)).toBe(4096);
});

test("options out of range or without effect are errors that name the flag", () => {
  const failing: [RopeOptions, string][] = [
    [{ ropeScale: 0 }, "--rope-scale is 0"],
    [{ ropeScale: Number.POSITIVE_INFINITY }, "--rope-scale is Infinity"],
    [{ ropeTheta: -1 }, "--rope-theta is -1"],
    [{ ropeScaling: "yarn", yarnOrigCtx: 1.5 }, "--yarn-orig-ctx is 1.5"],
    [{ ropeScaling: "yarn", yarnExtFactor: 2 }, "--yarn-ext-factor is 2"],
    [{ yarnBetaFast: 16 }, "--yarn-beta-fast changes nothing"],
    [{ ropeScaling: "none", ropeScale: 2 }, "--rope-scale changes nothing"],
    [{ ropeScaling: "yarn" }, "--rope-scaling yarn changes nothing: the model's factor is 1"],
  ];
  for (const [options, message] of failing) {
    expect(() => withRopeOptions(config(), options)).toThrow(message);
  }
});

const facts: ContextFacts = {
  ...{ maxContextLen: 2048, trainedContextLen: 2048, scaledContextLen: 2048 },
  ...{ ropeFactor: 1, positionLimit: undefined },
};

test("a prompt that does not fit: the numbers, and the flags that help", () => {
  const prompt = (length: number) => new Int32Array(length);
  const check = (length: number, use: "generate" | "read", changes: Partial<ContextFacts> = {}) =>
    checkPrompt(prompt(length), { ...facts, ...changes, vocabSize: 10 }, use);
  expect(() => check(2047, "generate")).not.toThrow();
  expect(() => check(2048, "read")).not.toThrow();
  expect(() => check(2048, "generate")).toThrow(
    "the prompt has 2048 tokens, the context 2048, and one must stay free for the answer; " +
      "the model was trained for 2048 tokens",
  );
  expect(() => check(2049, "read", { scaledContextLen: 4096 })).toThrow(
    "trained for 2048 tokens and its rope is scaled to 4096",
  );
});

test("advice: a larger context, scaling, or neither", () => {
  expect(contextAdvice(600, { ...facts, maxContextLen: 512 })).toBe(
    "shorten it, or start with --ctx 600 or more",
  );
  expect(contextAdvice(5000, facts)).toContain("--rope-scaling yarn --rope-scale 3");
  const scaled = { ...facts, scaledContextLen: 4096, ropeFactor: 2 };
  expect(contextAdvice(5000, scaled)).toContain("--rope-scale 3");
  const learned = { ...facts, positionLimit: 512 };
  expect(contextAdvice(600, learned)).toContain("512 positions");
  expect(contextAdvice(500, learned)).toContain("--ctx 500");
});

test("a context beyond the trained one is warned of unless scaling reaches it", () => {
  expect(contextWarning(facts)).toBeUndefined();
  const long = { ...facts, maxContextLen: 8192 };
  expect(contextWarning(long)).toContain("--ctx is 8192, but the model was trained for 2048");
  expect(contextWarning(long)).toContain("--rope-scaling yarn --rope-scale 4");
  expect(contextWarning({ ...long, scaledContextLen: 8192, ropeFactor: 4 })).toBeUndefined();
});
