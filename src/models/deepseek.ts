// DeepSeekMoE (the first DeepSeek with experts): Llama's attention, many fine-grained experts
// beside shared ones, dense first layers. Paper: arXiv 2401.06066.
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
import { addSharedExperts, expertSize, routedExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, ropeFactors } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const { numExperts, numShared, numLeadingDense } = config.experts;
  const rotations = addRotations(b, config, ropeFactors(config, options));
  const windowLen = windowLenOf(options, 0);
  const scale = config.scales.attention ?? 1 / Math.sqrt(config.headDim);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "interleaved", scale, windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    if (layer.index < numLeadingDense) {
      const gated = gatedMlp(b, mlpInput, layer, "silu");
      addProjection(b, gated, layer.name("ffn_down"), hidden);
      continue;
    }
    const intermediateSize = expertSize(config, layer);
    const routing = { ...softmaxRouting(config), normalise: false };
    const mlp = { numExperts, intermediateSize, routing, activation: "silu" } as const;
    routedExperts(b, mlpInput, layer, mlp, hidden);
    addSharedExperts(b, mlpInput, layer, numShared * intermediateSize, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const deepseek: Family = { architectures: ["deepseek"], buildPlan };
