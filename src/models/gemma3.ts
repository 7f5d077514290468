// Gemma 3, text: five layers with a window and rotations of their own to one that sees everything,
// norms on query and key heads instead of Gemma 2's caps. Paper: arXiv 2503.19786.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import {
  attend,
  finishTokens,
  gatedMlp,
  headRmsNorm,
  layersOf,
  project,
  projectQkv,
  rmsNorm,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, addWindowRotations } from "./rope.ts";
import { layerWindow } from "./windows.ts";

const windowPeriod = 6;
/** Base of the rotations in layers with a window, for files that do not say it. */
const windowRopeTheta = 10000;
/** The 27B model, known by its layers, scales scores by hiddenSize / numHeads, not by headDim. */
const layersOf27B = 62;

function attentionScale({ numLayers, hiddenSize, numHeads, headDim }: ModelConfig): number {
  const width = numLayers === layersOf27B ? hiddenSize / numHeads[0]! : headDim;
  return 1 / Math.sqrt(width);
}

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  // Only layers that see everything are stretched to long contexts.
  const own = { ropeTheta: config.ownRope.windowTheta ?? windowRopeTheta, stretch: 1 };
  const windowRotations = addWindowRotations(b, config, rotations, own);
  const scale = attentionScale(config);

  let hidden = b.embed(tokenEmbedding(b, config), Math.sqrt(config.hiddenSize));
  for (const layer of layersOf(config)) {
    const { isLocal, windowLen } = layerWindow(config, options, layer.index, windowPeriod);
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const { q, k, v } = projectQkv(b, attentionInput, layer);
    const qkv = {
      q: headRmsNorm(b, q, layer.name("attn_q_norm"), config),
      k: headRmsNorm(b, k, layer.name("attn_k_norm"), config),
      v,
    };
    let heads = attend(b, qkv, layer, {
      rotations: isLocal ? windowRotations : rotations,
      pairing: "half_split",
      scale,
      windowLen,
    });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    const attention = project(b, heads, layer.name("attn_output"), config.hiddenSize);
    b.add(rmsNorm(b, attention, layer.name("post_attention_norm"), config), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const gated = gatedMlp(b, mlpInput, layer, "gelu_tanh");
    const mlp = project(b, gated, layer.name("ffn_down"), config.hiddenSize);
    b.add(rmsNorm(b, mlp, layer.name("post_ffw_norm"), config), hidden);
  }
  const normed = rmsNorm(b, hidden, "output_norm", config);
  return finishTokens(b, normed, config, { softcap: config.scales.logitSoftcap });
}

export const gemma3: Family = { architectures: ["gemma3"], buildPlan };
