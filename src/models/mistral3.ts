// Ministral 3: Llama's block with YaRN, and queries that grow with the logarithm of their position
// (as in Llama 4) to keep attention sharp over long contexts. Model card: mistralai/Ministral-3-8B.
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
  const { originalContextLen: interval } = config.ownRope.scaling;
  const { positionTemperature: factor } = config.scales;
  const rotations = addRotations(b, config, ropeFactors(config, options));
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    if (factor !== undefined) b.positionScale(qkv.q, { interval, offset: 0, factor });
    let heads = attend(b, qkv, layer, { rotations, pairing: "interleaved", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    addMlpOrExperts(b, mlpInput, layer, config, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const mistral3: Family = { architectures: ["mistral3"], buildPlan };
