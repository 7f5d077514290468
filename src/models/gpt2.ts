// GPT-2: learned positions, layer norms, fused queries, keys and values, biases everywhere.
// Paper: Radford et al. 2019, Language Models are Unsupervised Multitask Learners.
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
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const windowLen = windowLenOf(options, 0);
  const positions = b.weight("position_embd.weight", config.contextLen, config.hiddenSize);

  let hidden = b.embed(tokenEmbedding(b, config));
  b.add(b.embed(positions, 1, "position"), hidden);
  for (const layer of layersOf(config)) {
    const attentionInput = layerNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations: undefined, pairing: "none", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = layerNorm(b, hidden, layer.name("ffn_norm"), config);
    const activated = plainMlp(b, mlpInput, layer, "gelu_tanh");
    addProjection(b, activated, layer.name("ffn_down"), hidden);
  }
  return finishTokens(b, layerNorm(b, hidden, "output_norm", config), config);
}

export const gpt2: Family = { architectures: ["gpt2"], buildPlan };
