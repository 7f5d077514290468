// Gemma 1: heads wider than hiddenSize / numHeads, a GELU gate, embeddings scaled by √hiddenSize
// and tied to the output. The 1 that its norms add to their weights is in the file's weights
// already. Paper: arXiv 2403.08295.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import {
  addProjection,
  attend,
  finishTokens,
  gatedMlp,
  layersOf,
  projectQkv,
  rmsNorm,
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

  let hidden = b.embed(tokenEmbedding(b, config), Math.sqrt(config.hiddenSize));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const gated = gatedMlp(b, mlpInput, layer, "gelu_tanh");
    addProjection(b, gated, layer.name("ffn_down"), hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const gemma: Family = { architectures: ["gemma"], buildPlan };
