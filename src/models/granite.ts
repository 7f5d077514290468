// Granite 3 and 4, dense: Llama's block with constant factors on embeddings, scores, residuals and
// logits (muP, arXiv 2203.03466). Models without rotations say so in the file.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import {
  attend,
  finishTokens,
  gatedMlp,
  layersOf,
  project,
  projectQkv,
  rmsNorm,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, ropeFactors } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const { embedding = 1, attention, residual = 1, logits = 1 } = config.scales;
  const rotations = config.hasRope
    ? addRotations(b, config, ropeFactors(config, options))
    : undefined;
  const scale = attention ?? 1 / Math.sqrt(config.headDim);
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config), embedding);
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "interleaved", scale, windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    b.add(project(b, heads, layer.name("attn_output"), config.hiddenSize), hidden, residual);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const gated = gatedMlp(b, mlpInput, layer, "silu");
    b.add(project(b, gated, layer.name("ffn_down"), config.hiddenSize), hidden, residual);
  }
  const normed = rmsNorm(b, hidden, "output_norm", config);
  return finishTokens(b, normed, config, { scale: 1 / logits });
}

export const granite: Family = { architectures: ["granite"], buildPlan };
