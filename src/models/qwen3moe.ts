// Qwen3-MoE: Qwen3's block (queries and keys normed head by head) with experts in every layer and
// none that all tokens share. Paper: arXiv 2505.09388.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import {
  addProjection,
  attend,
  finishTokens,
  headRmsNorm,
  layersOf,
  projectQkv,
  rmsNorm,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import { expertSize, routedExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const { q, k, v } = projectQkv(b, attentionInput, layer);
    const qkv = {
      q: headRmsNorm(b, q, layer.name("attn_q_norm"), config),
      k: headRmsNorm(b, k, layer.name("attn_k_norm"), config),
      v,
    };
    let heads = attend(b, qkv, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const mlp = {
      numExperts: config.experts.numExperts,
      intermediateSize: expertSize(config, layer),
      routing: softmaxRouting(config),
      activation: "silu",
    } as const;
    routedExperts(b, mlpInput, layer, mlp, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const qwen3moe: Family = { architectures: ["qwen3moe"], buildPlan };
