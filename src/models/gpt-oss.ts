// OpenAI's gpt-oss: every other layer sees a sliding window, each head has a sink in its softmax,
// experts have biases and a clamped gate, and are weighted by the softmax of the chosen logits.
// Model card: arXiv 2508.10925.
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
import { expertSize, routedExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, addWindowRotations } from "./rope.ts";
import { layerWindow } from "./windows.ts";

const windowPeriod = 2;

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowRotations = addWindowRotations(b, config, rotations);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const { isLocal, windowLen } = layerWindow(config, options, layer.index, windowPeriod);
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, {
      rotations: isLocal ? windowRotations : rotations,
      pairing: "half_split",
      windowLen,
      sinks: b.vector(`${layer.name("attn_sinks")}.weight`, layer.numHeads),
    });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("post_attention_norm"), config);
    const mlp = {
      numExperts: config.experts.numExperts,
      intermediateSize: expertSize(config, layer),
      routing: { ...softmaxRouting(config), scoring: "softmax_selected", normalise: false },
      activation: "swiglu_oai",
    } as const;
    routedExperts(b, mlpInput, layer, mlp, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const gptOss: Family = { architectures: ["gpt-oss"], buildPlan };
