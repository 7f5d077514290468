// What families decide from the config and the user's choices: windows and rope factors.
import { describe, expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import type { PlanOptions } from "../../src/models/family.ts";
import { readModelConfig } from "../../src/models/model-config.ts";
import { familyOf } from "../../src/models/registry.ts";
import { ropeFactors, ropeTable, unscaled, yarnTemperature } from "../../src/models/rope.ts";
import { layerWindow } from "../../src/models/windows.ts";
import { PlanBuilder } from "../../src/plan/builder.ts";
import type { MetadataValue } from "../../src/weights/metadata.ts";

function configOf(architecture: string, keys: Record<string, MetadataValue>) {
  const all = {
    ...{ block_count: 6, context_length: 64, embedding_length: 32, "attention.head_count": 2 },
    ...keys,
  };
  const metadata = new Map<string, MetadataValue>([["general.architecture", architecture]]);
  for (const [key, value] of Object.entries(all)) metadata.set(`${architecture}.${key}`, value);
  return readModelConfig(metadata);
}

const options = (rest: Partial<PlanOptions> = {}): PlanOptions => {
  return { slidingWindow: "auto", contextLen: 64, readTensor: () => undefined, ...rest };
};

function codeOf(action: () => unknown): string | undefined {
  try {
    action();
  } catch (error) {
    if (error instanceof TinferError) return error.code;
    throw error;
  }
  return undefined;
}

describe("windows", () => {
  const lengths = (
    keys: Record<string, MetadataValue>,
    slidingWindow: PlanOptions["slidingWindow"],
  ) =>
    Array.from({ length: 6 }, (_, index) => {
      const config = configOf("gemma3", keys);
      return layerWindow(config, options({ slidingWindow }), index, 3).windowLen;
    });

  test("all layers but every period-th have one", () => {
    expect(lengths({ "attention.sliding_window": 8 }, "auto")).toEqual([8, 8, 0, 8, 8, 0]);
  });

  test("the file's pattern comes first, as a number or layer by layer", () => {
    const file = { "attention.sliding_window": 8 };
    const counted = { ...file, "attention.sliding_window_pattern": 2 };
    expect(lengths(counted, "auto")).toEqual([8, 0, 8, 0, 8, 0]);
    const flags = [false, true, true, true, true, false];
    const listed = { ...file, "attention.sliding_window_pattern": flags };
    expect(lengths(listed, "auto")).toEqual([0, 8, 8, 8, 8, 0]);
    const numbers = {
      ...listed,
      "attention.sliding_window_pattern": Uint32Array.from(flags, Number),
    };
    expect(lengths(numbers, "auto")).toEqual([0, 8, 8, 8, 8, 0]);
    const short = { ...file, "attention.sliding_window_pattern": [true] };
    expect(codeOf(() => lengths(short, "auto"))).toBe("invalidFile");
  });

  test("a number changes the layers that have one, or all where none has", () => {
    expect(lengths({ "attention.sliding_window": 8 }, 5)).toEqual([5, 5, 0, 5, 5, 0]);
    expect(lengths({ "attention.sliding_window": 8 }, "off")).toEqual([0, 0, 0, 0, 0, 0]);
    expect(lengths({}, 5)).toEqual([5, 5, 5, 5, 5, 5]);
    expect(lengths({}, "auto")).toEqual([0, 0, 0, 0, 0, 0]);
  });
});

/** A plan over files that have every tensor with the shape of its part's name; norms are `[32]`. */
function planOf(
  architecture: string,
  shapes: Record<string, number[]>,
  keys: Record<string, MetadataValue>,
) {
  const find = (name: string) => {
    const part = name.replace(/^blk\.\d+\.(.*)\.weight$/, "$1");
    const shape = /norm(\.weight)?$/.test(part) ? [32] : shapes[part];
    return shape && { shape, typeId: 0 };
  };
  const config = configOf(architecture, { vocab_size: 4, feed_forward_length: 8, ...keys });
  const b = new PlanBuilder({ find, values: () => undefined });
  return familyOf(architecture).buildPlan(b, config, options());
}
const attentionShapes = {
  "token_embd.weight": [4, 32],
  ...{ attn_q: [32, 32], attn_k: [32, 32], attn_v: [32, 32], attn_output: [32, 32] },
};

test("files of Llama and Ministral 3 may have experts", () => {
  const matrices = {
    ffn_gate_exps: [4, 8, 32],
    ffn_up_exps: [4, 8, 32],
    ffn_down_exps: [4, 32, 8],
  };
  const shapes = { ...attentionShapes, ...matrices, ffn_gate_inp: [4, 32] };
  for (const architecture of ["llama", "mistral3"]) {
    const plan = planOf(architecture, shapes, { expert_count: 4, expert_used_count: 2 });
    expect(plan.ops.filter((op) => op.kind === "expertLinear").length).toBe(6);
  }
});

describe("rope", () => {
  test("Gemma 2's layers with a window take the base that the file has for them", () => {
    const matrices = { ffn_gate: [8, 32], ffn_up: [8, 32], ffn_down: [32, 8] };
    const rotatingOps = (keys: Record<string, MetadataValue>) => {
      const plan = planOf("gemma2", { ...attentionShapes, ...matrices }, keys);
      const tables = plan.ops.filter((op) => op.kind === "rotations");
      const layers = plan.ops.filter((op) => op.kind === "qkvPrep");
      return layers.map((op) => tables.findIndex(({ output }) => output === op.rotations));
    };
    expect(rotatingOps({})).toEqual([0, 0, 0, 0, 0, 0]);
    expect(rotatingOps({ "rope.freq_base_swa": 5 })).toEqual([1, 0, 1, 0, 1, 0]);
  });

  test("the long factors are for contexts beyond the first training's", () => {
    const config = configOf("phi3", { "rope.scaling.original_context_length": 32 });
    const names: string[] = [];
    const readTensor = (name: string) => {
      names.push(name);
      return undefined;
    };
    ropeFactors(config, options({ contextLen: 32, readTensor }));
    ropeFactors(config, options({ contextLen: 33, readTensor }));
    const wanted = ["rope_factors_short.weight", "rope_factors_long.weight"];
    expect(names.filter((name) => name !== "rope_freqs.weight")).toEqual(wanted);
  });

  test("factors of another number than frequencies are an error", () => {
    const plain = { rotaryDim: 8, ropeTheta: 10000, ropeScaling: unscaled };
    expect(ropeTable(plain, [1, 1, 1, 2]).frequencies[3]).toBeCloseTo(0.0005, 9);
    expect(codeOf(() => ropeTable(plain, [1, 1]))).toBe("invalidFile");
  });

  test("YaRN's log multiplier takes its temperature back", () => {
    const ropeScaling = { ...unscaled, kind: "yarn", factor: 8, originalContextLen: 32 } as const;
    const table = (logMultiplier: number) =>
      ropeTable({ rotaryDim: 8, ropeTheta: 10000, ropeScaling: { ...ropeScaling, logMultiplier } });
    expect(table(0).magnitude).toBeCloseTo(1 + 0.1 * Math.log(8), 12);
    expect(table(1).magnitude).toBe(1);
    expect(yarnTemperature(0.5, 1)).toBe(1);
  });
});
