// GLM-4 and GLM-Z1 (0414): norms before and after attention and MLP, half of each head is rotated,
// gate and up in one matrix. Paper: arXiv 2406.12793.
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
import { addRotations } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  // Models that see pictures rotate by sections, which for text are one rotation of halves.
  const pairing = config.hasRopeSections ? "half_split" : "interleaved";
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing, windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    const attention = project(b, heads, layer.name("attn_output"), config.hiddenSize);
    b.add(rmsNorm(b, attention, layer.name("post_attention_norm"), config), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const gated = gatedMlp(b, mlpInput, layer, "silu");
    const mlp = project(b, gated, layer.name("ffn_down"), config.hiddenSize);
    b.add(rmsNorm(b, mlp, layer.name("post_ffw_norm"), config), hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const glm4: Family = { architectures: ["glm4"], buildPlan };
