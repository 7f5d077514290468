// Phi-3.5-MoE: sixteen experts, two a token; biases on every projection and on the norms, LongRoPE.
// Paper: arXiv 2404.14219.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import {
  addProjection,
  attend,
  finishTokens,
  layersOf,
  projectQkv,
  rmsNorm,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import { routedExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, ropeFactors } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config, ropeFactors(config, options));
  // The window that files state is as long as the context; like all engines we leave it unused.
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const mlp = {
      numExperts: config.experts.numExperts,
      intermediateSize: layer.intermediateSize,
      routing: softmaxRouting(config),
      activation: "silu",
    } as const;
    routedExperts(b, mlpInput, layer, mlp, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const phimoe: Family = { architectures: ["phimoe"], buildPlan };
