// Llama 1 to 3.x and what shares its block: Mistral, Mixtral, Code Llama, TinyLlama, SmolLM, R1
// distills. Papers: arXiv 2302.13971 (Llama), 2307.09288 (Llama 2, grouped queries), 2407.21783
// (Llama 3), 2401.04088 (Mixtral).
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
  // Every engine leaves the window key of this architecture unused; a number asks for one.
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "interleaved", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    addMlpOrExperts(b, mlpInput, layer, config, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const llama: Family = { architectures: ["llama"], buildPlan };
