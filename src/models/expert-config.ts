// A model's mixture of experts in tinfer's own words: how many there are, how wide, and how a
// router's logits become a choice. Families say which of it their router uses.
import { TinferError } from "../core/errors.ts";
import type { Scoring } from "../plan/ops.ts";
import { type ConfigReader, limits } from "./config-reader.ts";

export interface ExpertConfig {
  /** 0 = every layer is dense. */
  readonly numExperts: number;
  readonly numExpertsPerToken: number;
  /** MLP width of one expert in each layer, where the file says it. */
  readonly intermediateSizes: readonly number[] | undefined;
  /** Experts that every token goes to, as wide together as `sharedIntermediateSize` if given. */
  readonly numShared: number;
  readonly sharedIntermediateSize: number | undefined;
  /** So many first layers are dense. */
  readonly numLeadingDense: number;
  /** Every so many layers have experts, the last of them. */
  readonly layerInterval: number;
  readonly scoring: Scoring | undefined;
  readonly numGroups: number;
  readonly numGroupsUsed: number;
  /** Whether a token's weights are divided by their sum. */
  readonly normalise: boolean | undefined;
  /** Factor on the weights. */
  readonly scale: number;
}

/** As files number them; 0 is "not said". */
const scorings: readonly (Scoring | undefined)[] = [
  undefined,
  "softmax",
  "sigmoid",
  "softmax_selected",
];

export function readExpertConfig(reader: ConfigReader, numLayers: number): ExpertConfig {
  const config: ExpertConfig = {
    numExperts: reader.count("expert_count", limits.experts, 0) ?? 0,
    numExpertsPerToken: reader.count("expert_used_count", limits.experts, 0) ?? 0,
    intermediateSizes: reader.perLayer("expert_feed_forward_length", numLayers, limits.width),
    numShared: reader.count("expert_shared_count", limits.experts, 0) ?? 0,
    sharedIntermediateSize:
      reader.count("expert_shared_feed_forward_length", limits.width, 0) || undefined,
    numLeadingDense: reader.count("leading_dense_block_count", limits.layers, 0) ?? 0,
    layerInterval: reader.count("interleave_moe_layer_step", limits.layers, 0) ?? 1,
    scoring: readScoring(reader),
    numGroups: reader.count("expert_group_count", limits.experts, 0) || 1,
    numGroupsUsed: reader.count("expert_group_used_count", limits.experts, 0) || 1,
    normalise: reader.flag("expert_weights_norm"),
    // Files write 0 for "none".
    scale: reader.float("expert_weights_scale") || 1,
  };
  check(reader, config);
  return config;
}

function readScoring(reader: ConfigReader): Scoring | undefined {
  const number = reader.count("expert_gating_func", 255, 0) ?? 0;
  if (number < scorings.length) return scorings[number];
  throw new TinferError("unsupported", `router function ${number} of this file is not known`, {
    hint: "known are 1 (softmax), 2 (sigmoid) and 3 (softmax of the chosen)",
  });
}

/** Each token goes to at least one expert and at most all of the groups that it may use. */
function check(reader: ConfigReader, config: ExpertConfig): void {
  const { numExperts, numExpertsPerToken, numGroups, numGroupsUsed } = config;
  if (numExperts === 0) return;
  if (numExperts % numGroups !== 0) {
    throw reader.invalid("expert_group_count", numGroups, `a divisor of ${numExperts}`);
  }
  if (numGroupsUsed > numGroups) {
    const wanted = `a whole number from 1 to ${numGroups}`;
    throw reader.invalid("expert_group_used_count", numGroupsUsed, wanted);
  }
  const most = (numExperts / numGroups) * numGroupsUsed;
  if (numExpertsPerToken >= 1 && numExpertsPerToken <= most) return;
  const wanted = `a whole number from 1 to ${most}`;
  throw reader.invalid("expert_used_count", numExpertsPerToken, wanted);
}
