// Phi 1, 1.5 and 2: attention and MLP read the same layer norm and are added together, part of each
// head is rotated, everything has biases. Report: arXiv 2309.05463 (Phi 1.5).
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import {
  addProjection,
  attend,
  finishTokens,
  layerNorm,
  layersOf,
  plainMlp,
  projectQkv,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    let input = layerNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, input, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden, input] = wantedRows(b, layer, heads, hidden, input);
    addProjection(b, heads, layer.name("attn_output"), hidden);
    const activated = plainMlp(b, input, layer, "gelu_tanh");
    addProjection(b, activated, layer.name("ffn_down"), hidden);
  }
  return finishTokens(b, layerNorm(b, hidden, "output_norm", config), config);
}

export const phi2: Family = { architectures: ["phi2"], buildPlan };
