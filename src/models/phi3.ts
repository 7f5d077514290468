// Phi 3, 3.5 and 4: Llama's block with fused matrices, and LongRoPE, whose factors depend on how
// long a context is asked for. Phi-3.5-MoE has experts, and biases on every projection and norm.
// Papers: arXiv 2404.14219 (Phi 3), 2402.13753 (LongRoPE).
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
import { addMlpOrExperts } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations, ropeFactors } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config, ropeFactors(config, options));
  // Converters do not write the window key reliably, or as long as the context (Phi-3.5-MoE), so
  // engines leave it; a number asks for one.
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    addMlpOrExperts(b, mlpInput, layer, config, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const phi3: Family = { architectures: ["phi3", "phimoe"], buildPlan };
