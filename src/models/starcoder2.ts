// StarCoder 2: layer norms and biases everywhere, grouped queries, rotary positions, and an MLP
// without a gate. Paper: arXiv 2402.19173.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import {
  addProjection,
  attend,
  finishTokens,
  layerNorm,
  layersOf,
  plainMlp,
  projectQkv,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = layerNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = layerNorm(b, hidden, layer.name("ffn_norm"), config);
    const activated = plainMlp(b, mlpInput, layer, "gelu_tanh");
    addProjection(b, activated, layer.name("ffn_down"), hidden);
  }
  return finishTokens(b, layerNorm(b, hidden, "output_norm", config), config);
}

export const starcoder2: Family = { architectures: ["starcoder2"], buildPlan };
