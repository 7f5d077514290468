// OLMo 2 and 3: no norm before attention and MLP but one after each, and one over all queries and
// all keys. OLMo 3 has windows in three layers of four, whose rotations YaRN leaves alone.
// Papers: arXiv 2501.00656 (OLMo 2), 2512.13961 (OLMo 3).
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
import { addRotations, unscaled } from "./rope.ts";
import { layerWindow } from "./windows.ts";

const windowPeriod = 4;

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowRotations = addRotations(b, { ...config, ropeScaling: unscaled });

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const { isLocal, windowLen } = layerWindow(config, options, layer.index, windowPeriod);
    const { q, k, v } = projectQkv(b, hidden, layer);
    const qkv = {
      q: rmsNorm(b, q, layer.name("attn_q_norm"), config),
      k: rmsNorm(b, k, layer.name("attn_k_norm"), config),
      v,
    };
    let heads = attend(b, qkv, layer, {
      rotations: isLocal ? windowRotations : rotations,
      pairing: "half_split",
      windowLen,
    });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    const attention = project(b, heads, layer.name("attn_output"), config.hiddenSize);
    b.add(rmsNorm(b, attention, layer.name("post_attention_norm"), config), hidden);

    const gated = gatedMlp(b, hidden, layer, "silu");
    const mlp = project(b, gated, layer.name("ffn_down"), config.hiddenSize);
    b.add(rmsNorm(b, mlp, layer.name("post_ffw_norm"), config), hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const olmo2: Family = { architectures: ["olmo2"], buildPlan };
