// Expert use: the figures of even and uneven choices, and metadata that no router can follow.
import { expect, test } from "bun:test";
import { layerUse } from "../../src/engine/expert-use.ts";
import { readModelConfig } from "../../src/models/model-config.ts";
import type { MetadataValue } from "../../src/weights/metadata.ts";

test("even use is balance 1 and variation 0", () => {
  const use = layerUse(3, 2, [5, 5, 5, 5]);
  expect(use.tokens).toBe(10);
  expect(use.balance).toBeCloseTo(1, 12);
  expect(use.variation).toBe(0);
});

test("a single expert is balance 0", () => {
  const use = layerUse(0, 1, [0, 12, 0, 0]);
  expect(use.balance).toBe(0);
  expect(use.variation).toBeCloseTo(Math.sqrt(3), 12);
});

test("half of the experts alike is the logarithms' ratio", () => {
  expect(layerUse(0, 1, [3, 3, 0, 0]).balance).toBeCloseTo(0.5, 12);
});

test("no tokens are no imbalance", () => {
  expect(layerUse(0, 2, [0, 0, 0])).toMatchObject({ tokens: 0, balance: 1, variation: 0 });
});

function configOf(changes: Record<string, MetadataValue>) {
  const keys = {
    block_count: 2,
    context_length: 128,
    embedding_length: 64,
    "attention.head_count": 4,
    expert_count: 16,
    expert_used_count: 4,
    ...changes,
  };
  const metadata = new Map<string, MetadataValue>([["general.architecture", "deepseek2"]]);
  for (const [key, value] of Object.entries(keys)) metadata.set(`deepseek2.${key}`, value);
  return readModelConfig(metadata);
}

test("absent keys have the values that files leave out", () => {
  expect(configOf({}).experts).toMatchObject({
    ...{ numGroups: 1, numGroupsUsed: 1, numLeadingDense: 0, numShared: 0, scale: 1 },
    ...{ scoring: undefined, normalise: undefined, intermediateSizes: undefined },
  });
  // Converters write 0 for "none".
  expect(configOf({ expert_weights_scale: 0, expert_group_count: 0 }).experts).toMatchObject({
    ...{ scale: 1, numGroups: 1 },
  });
});

test("widths may differ from layer to layer", () => {
  const { experts } = configOf({ expert_feed_forward_length: Int32Array.of(32, 48) });
  expect(experts.intermediateSizes).toEqual([32, 48]);
});

test("counts that cannot be are errors that name the key", () => {
  const cases: [Record<string, MetadataValue>, string][] = [
    [{ expert_used_count: 17 }, "deepseek2.expert_used_count"],
    [{ expert_used_count: 0 }, "deepseek2.expert_used_count"],
    [{ expert_group_count: 5 }, "deepseek2.expert_group_count"],
    [{ expert_group_count: 4, expert_group_used_count: 5 }, "deepseek2.expert_group_used_count"],
    [{ expert_group_count: 8, expert_group_used_count: 1 }, "deepseek2.expert_used_count"],
    [{ expert_gating_func: 9 }, "router function 9"],
  ];
  for (const [changes, words] of cases) expect(() => configOf(changes)).toThrow(words);
});
