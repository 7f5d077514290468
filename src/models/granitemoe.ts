// Granite 3 MoE: Granite's block, with constant factors on embedding, scores, residuals and logits,
// and experts; some have a shared expert. Granite 3.0 report, IBM, 2024.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import {
  attend,
  finishTokens,
  layersOf,
  project,
  projectQkv,
  rmsNorm,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import { addSharedExperts, routedExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, ropeFactors } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const { numExperts, sharedIntermediateSize } = config.experts;
  const { embedding = 1, residual = 1, logits = 1 } = config.scales;
  const scale = config.scales.attention ?? 1 / Math.sqrt(config.headDim);
  const rotations = addRotations(b, config, ropeFactors(config, options));
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config), embedding);
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "interleaved", scale, windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    const attention = project(b, heads, layer.name("attn_output"), layer.hiddenSize);
    b.add(attention, hidden, residual);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const routing = softmaxRouting(config);
    const { intermediateSize } = layer;
    const mlp = { numExperts, intermediateSize, routing, activation: "silu" } as const;
    const answer = routedExperts(b, mlpInput, layer, mlp);
    if (sharedIntermediateSize !== undefined) {
      addSharedExperts(b, mlpInput, layer, sharedIntermediateSize, answer);
    }
    b.add(answer, hidden, residual);
  }
  const normed = rmsNorm(b, hidden, "output_norm", config);
  return finishTokens(b, normed, config, { scale: 1 / logits });
}

export const granitemoe: Family = { architectures: ["granitemoe"], buildPlan };
