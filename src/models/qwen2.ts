// Qwen 2 and 2.5, QwQ and the R1 distills of Qwen: Llama's block with biases on queries, keys and
// values. Paper: arXiv 2407.10671.
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
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  // The window key is for long-context variants that no engine runs so; a number asks for one.
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const gated = gatedMlp(b, mlpInput, layer, "silu");
    addProjection(b, gated, layer.name("ffn_down"), hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const qwen2: Family = { architectures: ["qwen2"], buildPlan };
