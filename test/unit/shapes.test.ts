// Random models of known shapes: which weight type each tensor gets, and that their families take
// them.
import { describe, expect, test } from "bun:test";
import { readModelConfig } from "../../src/models/model-config.ts";
import { familyOf } from "../../src/models/registry.ts";
import { randomModel, shapeNames } from "../../src/models/shapes.ts";
import { PlanBuilder } from "../../src/plan/builder.ts";
import type { MetadataValue } from "../../src/weights/metadata.ts";

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

describe("plans of the shapes", () => {
  for (const name of shapeNames) {
    test(name, () => {
      const { metadata, tensors } = randomModel(name, "f32");
      const values = Array.from(
        metadata,
        ([key, { value }]) => [key, value as MetadataValue] as const,
      );
      const config = readModelConfig(new Map(values));
      const shapesOf = new Map(Array.from(tensors, ({ name, shape }) => [name, shape]));
      const readTensor = () => undefined;
      const builder = new PlanBuilder({
        find(tensor) {
          const shape = shapesOf.get(tensor);
          return shape && { shape, typeId: 0 };
        },
        values: readTensor,
      });
      const options = { slidingWindow: "auto", contextLen: 1024 } as const;
      const plan = familyOf(config.architecture).buildPlan(builder, config, {
        ...options,
        readTensor,
      });
      expect(plan.caches.length).toBe(config.numLayers);
      // Each tensor of the file is read, and no other.
      const read = new Set(plan.weights.filter((w) => w.constant === undefined).map((w) => w.name));
      expect([...read].toSorted()).toEqual([...shapesOf.keys()].toSorted());
    });
  }
});
