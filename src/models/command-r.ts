// Command R and R+: attention and MLP read the same layer norm and are added together; R+ also
// normalises queries and keys, each head with weights of its own. Logits are scaled.
// Model cards: CohereLabs/c4ai-command-r-v01 and c4ai-command-r-plus.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import type { Tensor } from "../plan/ops.ts";
import {
  addProjection,
  attend,
  finishTokens,
  gatedMlp,
  layerNorm,
  layersOf,
  projectQkv,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

/** Layer norm of each head, with weights `[numHeads, headDim]`; the tensor itself without them. */
function headNorm(b: PlanBuilder, input: Tensor, name: string, config: ModelConfig): Tensor {
  const weight = b.optionalVector(`${name}.weight`, input.width);
  if (weight === undefined) return input;
  return b.norm(input, "layer", weight, config.normEpsilon, { groupWidth: config.headDim });
}

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    let input = layerNorm(b, hidden, layer.name("attn_norm"), config);
    const { q, k, v } = projectQkv(b, input, layer);
    const qkv = {
      q: headNorm(b, q, layer.name("attn_q_norm"), config),
      k: headNorm(b, k, layer.name("attn_k_norm"), config),
      v,
    };
    let heads = attend(b, qkv, layer, { rotations, pairing: "interleaved", windowLen });
    [heads, hidden, input] = wantedRows(b, layer, heads, hidden, input);
    addProjection(b, heads, layer.name("attn_output"), hidden);
    const gated = gatedMlp(b, input, layer, "silu");
    addProjection(b, gated, layer.name("ffn_down"), hidden);
  }
  const normed = layerNorm(b, hidden, "output_norm", config);
  return finishTokens(b, normed, config, { scale: config.scales.logits });
}

export const commandR: Family = { architectures: ["command-r"], buildPlan };
