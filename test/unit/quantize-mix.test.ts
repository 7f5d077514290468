// Mixes by name: which weight type each tensor gets, worked out by hand from the rules.
import { describe, expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import { readMixFacts } from "../../src/models/mix-facts.ts";
import { findMix, mixNames } from "../../src/weights/quantize-mix.ts";
import {
  chooseTypes,
  type MixFacts,
  needsImportance,
  type TypedTensor,
  type TypeOptions,
  typeForRows,
} from "../../src/weights/quantize-types.ts";

const parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

interface Case extends Partial<MixFacts> {
  readonly cols?: number;
  readonly tied?: boolean;
  readonly options?: Partial<TypeOptions>;
  readonly more?: readonly TypedTensor[];
}

function choose(mix: string, given: Case = {}): (name: string) => string | undefined {
  const { cols = 256, tied = false, options = {}, more = [] } = given;
  const facts = { numLayers: 16, headsPerKvHead: 1, numExperts: 0, ...given };
  const names = ["token_embd", ...(tied ? [] : ["output"])];
  for (let layer = 0; layer < facts.numLayers; layer++) {
    names.push(...parts.map((part) => `blk.${layer}.${part}`));
  }
  const tensors = names.map((name): TypedTensor => {
    return { name: `${name}.weight`, type: "bf16", shape: [512, cols] };
  });
  const types = chooseTypes([...tensors, ...more], facts, { mix: findMix(mix), ...options });
  return (name) => types.get(`${name}.weight`)?.type;
}

describe("mixes", () => {
  test("q4_k_m: output, both ends and every third layer between", () => {
    const type = choose("Q4_K_M");
    expect([type("token_embd"), type("output"), type("blk.3.attn_q")]).toEqual([
      ...["q4_k", "q6_k", "q4_k"],
    ]);
    const layers = Array.from({ length: 16 }, (_, layer) => type(`blk.${layer}.ffn_down`));
    const more = layers.flatMap((found, layer) => (found === "q6_k" ? [layer] : []));
    expect(more).toEqual([0, 1, 4, 7, 10, 13, 14, 15]);
    expect(layers[2]).toBe("q4_k");
  });

  test("one matrix for both ends is quantised as the output", () => {
    expect(choose("q4_0", { tied: true })("token_embd")).toBe("q6_k");
    expect(choose("iq2_xs", { tied: true })("token_embd")).toBe("q5_k");
    expect(choose("iq2_xs")("token_embd")).toBe("q2_k");
  });

  test("heads that share a KV head, and importance, change the rules", () => {
    expect(choose("q2_k")("blk.5.attn_v")).toBe("q3_k");
    expect(choose("q2_k", { headsPerKvHead: 4 })("blk.5.attn_v")).toBe("q4_k");
    const options = { hasImportance: true };
    expect(choose("q4_0")("blk.0.ffn_down")).toBe("q4_0");
    expect(choose("q4_0", { options })("blk.0.ffn_down")).toBe("q4_1");
    expect(choose("iq4_xs")("blk.1.ffn_down")).toBe("q5_k");
    expect(choose("iq4_xs", { options })("blk.1.ffn_down")).toBe("iq4_xs");
  });

  test("eight experts: attention is small, and keeps more", () => {
    const type = choose("q4_k_s", { numExperts: 8 });
    expect([type("blk.9.attn_v"), type("blk.9.attn_k")]).toEqual(["q8_0", "q8_0"]);
    expect([type("blk.9.attn_output"), type("blk.9.attn_q")]).toEqual(["q5_k", "q4_k"]);
    const few = choose("iq1_s", { numExperts: 8 });
    expect([few("blk.9.attn_v"), few("blk.9.attn_k")]).toEqual(["q4_k", "q4_k"]);
  });

  test("few bits: shared experts take places among the first down projections, biases none", () => {
    const more = Array.from({ length: 16 }, (_, layer): TypedTensor[] => [
      { name: `blk.${layer}.ffn_down_shexp.weight`, type: "bf16", shape: [512, 256] },
      { name: `blk.${layer}.ffn_down.bias`, type: "f32", shape: [512] },
    ]).flat();
    const type = choose("iq2_xs", { more });
    const downs = ["ffn_down", "ffn_down_shexp"] as const;
    const layers = [0, 1].map((layer) => downs.map((part) => type(`blk.${layer}.${part}`)));
    expect(layers).toEqual([
      ["q2_k", "q2_k"],
      ["iq2_xs", "iq2_xs"],
    ]);
    expect(choose("iq2_xs")("blk.1.ffn_down")).toBe("q2_k");
  });

  test("mxfp4 is for experts; everything else becomes q8_0", () => {
    const experts = { name: "blk.0.ffn_up_exps.weight", shape: [4, 64, 256] };
    const type = choose("MXFP4_MOE", { more: [{ ...experts, type: "bf16" }], numExperts: 4 });
    expect(type("blk.0.ffn_up_exps")).toBe("mxfp4");
    expect([type("output"), type("blk.0.ffn_up")]).toEqual(["q8_0", "q8_0"]);
  });

  test("attention layers of hybrid models are counted, not numbered", () => {
    const more = [3, 7, 11, 15].map((layer): TypedTensor => {
      return { name: `blk.${layer}.attn_v.weight`, type: "f32", shape: [64, 256] };
    });
    const facts = { numLayers: 16, headsPerKvHead: 1, numExperts: 0 };
    const types = chooseTypes(more, facts, { mix: findMix("q3_k_m") });
    expect(more.map(({ name }) => types.get(name)!.type)).toEqual([
      ...(["q5_k", "q5_k", "q4_k", "q4_k"] as const),
    ]);
  });
});

describe("what overrules the mix", () => {
  test("rows that are no whole blocks get the next type of 32-blocks, or f16", () => {
    expect(choose("q4_k_m", { cols: 96 })("blk.2.attn_q")).toBe("q5_0");
    expect(choose("q4_k_m", { cols: 96 })("output")).toBe("q8_0");
    expect([typeForRows("iq2_s", 96), typeForRows("tq1_0", 96)]).toEqual(["iq4_nl", "q4_0"]);
    expect([typeForRows("q4_0", 50), typeForRows("q6_k", 50)]).toEqual(["f16", "f16"]);
  });

  test("norms, routers, vectors and small things stay", () => {
    const kept = [
      ...["blk.0.attn_norm", "blk.0.ffn_gate_inp", "blk.0.ssm_conv1d", "position_embd"],
      ...["blk.0.time_mix_w1", "v.patch_embd"],
    ];
    const more: TypedTensor[] = [
      ...kept.map((name) => ({ name: `${name}.weight`, type: "f32" as const, shape: [64, 256] })),
      { name: "blk.0.ffn_up.bias", type: "f32", shape: [64, 256] },
      { name: "blk.0.shared_gate.weight", type: "f32", shape: [1, 256] },
    ];
    const facts = { numLayers: 1, headsPerKvHead: 1, numExperts: 0 };
    const types = chooseTypes(more, facts, { mix: findMix("q8_0") });
    for (const { name } of more) expect({ name, ...types.get(name)! }.type).toBe("f32");
  });

  test("--pure, patterns, and the types of both ends", () => {
    const overrides = [{ pattern: /ffn_(up|gate)/, type: "q8_0" as const }];
    const options = { overrides, outputType: "f16", tokenEmbeddingType: "q5_0" } as const;
    const type = choose("q4_k_m", { options });
    expect([type("output"), type("token_embd")]).toEqual(["f16", "q5_0"]);
    expect([type("blk.0.ffn_up"), type("blk.0.ffn_down")]).toEqual(["q8_0", "q6_k"]);
    const pure = choose("q4_k_m", { options: { pure: true } });
    expect([pure("output"), pure("blk.0.ffn_down")]).toEqual(["q4_k", "q4_k"]);
  });

  test("types that nobody can make are refused", () => {
    const overrides = [{ pattern: /output/, type: "q1_0" as const }];
    expect(() => choose("q8_0", { options: { overrides } })).toThrow("q1_0");
  });
});

test("names in any case and aliases; unknown ones name the nearest; numbers are unique", () => {
  expect(findMix("q4_K").name).toBe("q4_k_m");
  let error: unknown;
  try {
    findMix("q4_k_x");
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(TinferError);
  expect((error as TinferError).hint).toMatch(/nearest: q4_k/);
  const numbers = mixNames.map((name) => findMix(name).fileType);
  expect(new Set(numbers).size).toBe(mixNames.length);
});

test("few bits need an importance matrix, but not for what looks tokens up", () => {
  const mix = findMix("iq2_xxs");
  expect(needsImportance("blk.0.attn_q.weight", "iq2_xxs", mix)).toBe(true);
  expect(needsImportance("output.weight", "iq2_xxs", mix)).toBe(false);
  expect(needsImportance("blk.0.attn_q.weight", "q2_k", mix)).toBe(false);
  expect(needsImportance("blk.0.attn_q.weight", "q2_k", findMix("q2_k_s"))).toBe(true);
});

test("facts come from any architecture's keys; absent ones count as none", () => {
  const metadata = new Map<string, string | number | Int32Array>([
    ["general.architecture", "mystery"],
    ["mystery.block_count", 4],
    ["mystery.attention.head_count", Int32Array.of(8, 4)],
    ["mystery.attention.head_count_kv", 2],
  ]);
  expect(readMixFacts(metadata)).toEqual({ numLayers: 4, headsPerKvHead: 4, numExperts: 0 });
  expect(readMixFacts(new Map())).toEqual({ numLayers: 0, headsPerKvHead: 1, numExperts: 0 });
});
