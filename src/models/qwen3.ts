// Qwen 3: no biases, and an RMS norm on every query and key head before the rotation; in its MoE
// models experts in every layer and none that all tokens share. Paper: arXiv 2505.09388.
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
import { addMlpOrExperts, expertSize } from "./expert-mlp.ts";
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
    const normed = {
      q: headRmsNorm(b, q, layer.name("attn_q_norm"), config),
      k: headRmsNorm(b, k, layer.name("attn_k_norm"), config),
      v,
    };
    let heads = attend(b, normed, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    addMlpOrExperts(b, mlpInput, layer, config, hidden, expertSize(config, layer));
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const qwen3: Family = { architectures: ["qwen3", "qwen3moe"], buildPlan };
