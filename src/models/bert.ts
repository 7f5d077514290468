// BERT and the embedding models built on it: MiniLM, BGE, E5, GTE, mxbai, XLM-RoBERTa's; and
// nomic-embed, with rotations in the place of learned positions and a gated MLP. A text is read
// whole: every token sees all others, and the result is the hidden states.
// Papers: arXiv 1810.04805 (BERT), 1911.02116 (XLM-R), 2402.01613 (Nomic).
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import * as blocks from "./blocks.ts";
import type { Family } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { addRotations } from "./rope.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig): Plan {
  const { hiddenSize, contextLen, numTokenTypes, headDim, valueDim } = config;
  const embedded = b.embed(blocks.tokenEmbedding(b, config));
  // All tokens are of the first type, "sentence A".
  const tokenTypes = b.optionalWeight("token_types.weight", numTokenTypes, hiddenSize);
  if (tokenTypes !== undefined) b.add(b.embed(tokenTypes, 1, "first"), embedded);
  const isNomic = config.architecture === "nomic-bert";
  if (!isNomic) {
    const positions = b.weight("position_embd.weight", contextLen, hiddenSize);
    b.add(b.embed(positions, 1, "position"), embedded);
  }
  const rotations = isNomic ? addRotations(b, config) : undefined;
  let hidden = blocks.layerNorm(b, embedded, "token_embd_norm", config);

  // Keys and values are read within the step that makes them: one cache serves all layers.
  const cache = b.cache(config.numKvHeads[0]!, headDim, valueDim);
  for (const layer of blocks.layersOf(config)) {
    const qkv = blocks.projectQkv(b, hidden, layer);
    const spec = { rotations, pairing: "half_split", causal: false, cache } as const;
    const attention = blocks.attend(b, qkv, layer, spec);
    blocks.addProjection(b, attention, layer.name("attn_output"), hidden);
    hidden = blocks.layerNorm(b, hidden, layer.name("attn_output_norm"), config);

    const mlp = isNomic
      ? blocks.gatedMlp(b, hidden, layer, "silu")
      : blocks.plainMlp(b, hidden, layer, "gelu_tanh");
    blocks.addProjection(b, mlp, layer.name("ffn_down"), hidden);
    hidden = blocks.layerNorm(b, hidden, layer.name("layer_output_norm"), config);
  }
  return blocks.finishHidden(b, hidden, config);
}

export const bert: Family = { architectures: ["bert", "nomic-bert"], isEncoder: true, buildPlan };
