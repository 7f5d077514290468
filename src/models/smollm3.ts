// SmolLM 3: Llama's block where every fourth layer has no rotary embedding (NoPE, arXiv
// 2501.18795).
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

const noRopePeriod = 4;

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const rotates = (layer.index + 1) % noRopePeriod !== 0;
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, {
      rotations: rotates ? rotations : undefined,
      pairing: "interleaved",
      windowLen,
    });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const gated = gatedMlp(b, mlpInput, layer, "silu");
    addProjection(b, gated, layer.name("ffn_down"), hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

export const smollm3: Family = { architectures: ["smollm3"], buildPlan };
