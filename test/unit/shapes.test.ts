// Random models of known shapes: which weight type each tensor gets.
import { describe, expect, test } from "bun:test";
import { randomModel } from "../../src/models/shapes.ts";

function typesOf(shape: string, type: string): Map<string, string> {
  return new Map(Array.from(randomModel(shape, type).tensors, ({ name, type }) => [name, type]));
}

describe("weight types of a shape", () => {
  test("a mix gives the output matrix and the sensitive layers more bits", () => {
    const types = typesOf("llama-3.2-1b", "q4_k_m");
    expect(types.get("token_embd.weight")).toBe("q6_k");
    expect(types.get("blk.0.attn_q.weight")).toBe("q4_k");
    expect(types.get("blk.0.ffn_down.weight")).toBe("q6_k");
    expect(types.get("blk.0.attn_norm.weight")).toBe("f32");
  });

  test("rows of 576 are no whole super-blocks: the next larger type of 32-blocks", () => {
    const types = typesOf("smollm-135m", "q4_k_m");
    expect(types.get("token_embd.weight")).toBe("q8_0");
    expect(types.get("blk.0.attn_q.weight")).toBe("q5_0");
    // Rows of 1536 are.
    expect(types.get("blk.0.ffn_down.weight")).toBe("q6_k");
    expect(typesOf("smollm-135m", "q3_k_m").get("blk.0.attn_q.weight")).toBe("q4_0");
    expect(typesOf("smollm-135m", "q4_0").get("blk.0.attn_q.weight")).toBe("q4_0");
  });
});
