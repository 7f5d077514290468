// Gemma 2: every other layer sees a window, norms before and after attention and MLP, and tanh caps
// on scores and logits. Paper: arXiv 2408.00118.
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
import { addRotations, addWindowRotations } from "./rope.ts";
import { layerWindow } from "./windows.ts";

/** What the published models have, for files that do not say it. */
const usual = { windowLen: 4096, attentionSoftcap: 50, logitSoftcap: 30 } as const;
/** Layers with a window alternate with those that see everything. */
const windowPeriod = 2;
/** The 27B model, known by its layers, scales scores by hiddenSize / numHeads, not by headDim. */
const layersOf27B = 46;

function attentionScale({ numLayers, hiddenSize, numHeads, headDim }: ModelConfig): number {
  const width = numLayers === layersOf27B ? hiddenSize / numHeads[0]! : headDim;
  return 1 / Math.sqrt(width);
}

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowRotations = addWindowRotations(b, config, rotations);
  const windows = { ...config, windowLen: config.windowLen ?? usual.windowLen };
  const scale = attentionScale(config);
  const softcap = config.scales.attentionSoftcap ?? usual.attentionSoftcap;

  let hidden = b.embed(tokenEmbedding(b, config), Math.sqrt(config.hiddenSize));
  for (const layer of layersOf(config)) {
    const { isLocal, windowLen } = layerWindow(windows, options, layer.index, windowPeriod);
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, {
      rotations: isLocal ? windowRotations : rotations,
      pairing: "half_split",
      scale,
      softcap,
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
  const logitSoftcap = config.scales.logitSoftcap ?? usual.logitSoftcap;
  return finishTokens(b, normed, config, { softcap: logitSoftcap });
}

export const gemma2: Family = { architectures: ["gemma2"], buildPlan };
