// DeepSeek-V2, V3 and R1, and what shares their block: Mistral Large 3, Mistral 4, Kimi K2,
// GigaChat 3. Experts in groups; their attention is in `latent-attention.ts`. Papers: arXiv
// 2405.04434 (V2), 2412.19437 (V3).
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import type { Routing, Tensor } from "../plan/ops.ts";
import {
  addProjection,
  finishTokens,
  gatedMlp,
  type Layer,
  layersOf,
  rmsNorm,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import { addSharedExperts, expertSize, routedExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import { attendLatent, latentRotations, latentValues } from "./latent-attention.ts";
import type { ModelConfig } from "./model-config.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = latentRotations(b, config);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const attention = attendLatent(b, attentionInput, layer, { config, options, rotations });
    let { latents } = attention;
    [latents, hidden] = wantedRows(b, layer, latents, hidden);
    const heads = latentValues(b, latents, attention);
    addProjection(b, heads, layer.name("attn_output"), hidden);
    addMlp(b, config, layer, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

function addMlp(b: PlanBuilder, config: ModelConfig, layer: Layer, hidden: Tensor): void {
  const { numExperts, numShared, numLeadingDense } = config.experts;
  const input = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
  if (layer.index < numLeadingDense) {
    addProjection(b, gatedMlp(b, input, layer, "silu"), layer.name("ffn_down"), hidden);
    return;
  }
  const intermediateSize = expertSize(config, layer);
  const routing = routingOf(b, config, layer);
  const mlp = { numExperts, intermediateSize, routing, activation: "silu" } as const;
  routedExperts(b, input, layer, mlp, hidden);
  if (numShared > 0) addSharedExperts(b, input, layer, numShared * intermediateSize, hidden);
}

/** V3 balances its experts by a bias that counts for the choice only. */
function routingOf(b: PlanBuilder, config: ModelConfig, { name }: Layer): Routing {
  const { numExperts, scoring, normalise } = config.experts;
  return {
    ...softmaxRouting(config),
    scoring: scoring ?? unstatedScoring(config),
    selectionBias: b.optionalVector(`${name("exp_probs_b")}.bias`, numExperts),
    normalise: normalise ?? false,
  };
}

/** Files of V2 and V2.5 state none; nor do those of GLM 4.7 Flash, which is scored like V3. */
function unstatedScoring({ numLayers, vocabSize }: ModelConfig): Routing["scoring"] {
  const isGlm = (numLayers === 47 || numLayers === 48) && vocabSize === 154880;
  return isGlm ? "sigmoid" : "softmax";
}

export const deepseek2: Family = { architectures: ["deepseek2", "mistral4"], buildPlan };
