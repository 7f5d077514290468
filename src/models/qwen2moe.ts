// Qwen1.5-MoE and Qwen2-MoE: Qwen2's block (biases on queries, keys and values) with many small
// experts, and a shared one that each token lets in by a sigmoid. Paper: arXiv 2407.10671.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import type { Tensor } from "../plan/ops.ts";
import {
  addProjection,
  attend,
  finishTokens,
  gatedMlp,
  type Layer,
  layersOf,
  project,
  projectQkv,
  rmsNorm,
  tokenEmbedding,
  wantedRows,
} from "./blocks.ts";
import { expertSize, routedExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations } from "./rope.ts";
import { windowLenOf } from "./windows.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const rotations = addRotations(b, config);
  const windowLen = windowLenOf(options, 0);

  let hidden = b.embed(tokenEmbedding(b, config));
  for (const layer of layersOf(config)) {
    const attentionInput = rmsNorm(b, hidden, layer.name("attn_norm"), config);
    const qkv = projectQkv(b, attentionInput, layer);
    let heads = attend(b, qkv, layer, { rotations, pairing: "half_split", windowLen });
    [heads, hidden] = wantedRows(b, layer, heads, hidden);
    addProjection(b, heads, layer.name("attn_output"), hidden);

    const mlpInput = rmsNorm(b, hidden, layer.name("ffn_norm"), config);
    const mlp = {
      numExperts: config.experts.numExperts,
      intermediateSize: expertSize(config, layer),
      routing: { ...softmaxRouting(config), normalise: false },
      activation: "silu",
    } as const;
    routedExperts(b, mlpInput, layer, mlp, hidden);
    addGatedSharedExpert(b, mlpInput, layer, config, hidden);
  }
  return finishTokens(b, rmsNorm(b, hidden, "output_norm", config), config);
}

/** hidden += sigmoid(gate of the token) * shared expert's answer */
function addGatedSharedExpert(
  b: PlanBuilder,
  input: Tensor,
  layer: Layer,
  { experts }: ModelConfig,
  hidden: Tensor,
): void {
  const intermediateSize = experts.sharedIntermediateSize ?? layer.intermediateSize;
  const gated = gatedMlp(b, input, layer, "silu", { suffix: "_shexp", intermediateSize });
  const answer = project(b, gated, layer.name("ffn_down_shexp"), layer.hiddenSize);
  const gate = project(b, input, layer.name("ffn_gate_inp_shexp"), 1);
  b.add(b.glu(gate, answer, "sigmoid"), hidden);
}

export const qwen2moe: Family = { architectures: ["qwen2moe"], buildPlan };
