// Llama 1 to 3.x and what shares its block: Mistral, Mixtral, Code Llama, TinyLlama, SmolLM, R1
// distills. Papers: arXiv 2302.13971 (Llama), 2307.09288 (Llama 2, grouped queries), 2407.21783
// (Llama 3), 2401.04088 (Mixtral).
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import { addExperts, softmaxRouting } from "./expert-mlp.ts";
import type { Family, PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";
import { ropeTable } from "./rope.ts";

function buildPlan(b: PlanBuilder, config: ModelConfig, options: PlanOptions): Plan {
  const { hiddenSize, headDim, valueDim, vocabSize, normEpsilon: epsilon } = config;
  const tokenEmbedding = b.weight("token_embd.weight", vocabSize, hiddenSize);
  const table = ropeTable(config, options.readTensor("rope_freqs.weight"));
  const frequencies = b.constant("rope frequencies", table.frequencies);
  const rotations =
    table.frequencies.length > 0 ? b.rotations(frequencies, table.magnitude) : undefined;
  // Every engine leaves the window key of this architecture unused; a number asks for one.
  const windowLen = typeof options.slidingWindow === "number" ? options.slidingWindow : 0;

  let hidden = b.embed(tokenEmbedding);
  for (let layer = 0; layer < config.numLayers; layer++) {
    const name = (part: string) => `blk.${layer}.${part}`;
    const numHeads = config.numHeads[layer]!;
    const numKvHeads = config.numKvHeads[layer]!;
    const intermediateSize = config.intermediateSizes[layer]!;
    const projection = (part: string, rows: number) => ({
      weight: b.weight(name(`${part}.weight`), rows, hiddenSize),
      bias: b.optionalVector(name(`${part}.bias`), rows),
    });

    const attentionInput = b.norm(
      hidden,
      "rms",
      b.vector(name("attn_norm.weight"), hiddenSize),
      epsilon,
    );
    const [q, k, v] = b.linears(attentionInput, [
      projection("attn_q", numHeads * headDim),
      projection("attn_k", numKvHeads * headDim),
      projection("attn_v", numKvHeads * valueDim),
    ]) as [typeof hidden, typeof hidden, typeof hidden];
    const cache = b.cache(numKvHeads, headDim, valueDim);
    b.qkvPrep({ q, k, v }, { cache, numHeads, pairing: "interleaved", rotations });
    let attention = b.attentionPaged(q, {
      cache,
      numHeads,
      scale: 1 / Math.sqrt(headDim),
      windowLen,
    });
    if (layer === config.numLayers - 1) {
      // Beyond the last attention only rows whose logits are wanted matter.
      attention = b.gatherRows(attention);
      hidden = b.gatherRows(hidden);
    }
    const oProj = b.weight(name("attn_output.weight"), hiddenSize, numHeads * valueDim);
    const oBias = b.optionalVector(name("attn_output.bias"), hiddenSize);
    b.linearAccumulate(attention, oProj, hidden, oBias);

    const mlpInput = b.norm(hidden, "rms", b.vector(name("ffn_norm.weight"), hiddenSize), epsilon);
    if (config.numExperts > 0) {
      const { numExperts, numExpertsPerToken } = config;
      const routing = softmaxRouting(numExpertsPerToken);
      const activation = "silu";
      const mlp = { layer, numExperts, intermediateSize, routing, activation } as const;
      addExperts(b, mlpInput, hidden, mlp);
      continue;
    }
    const gate = projection("ffn_gate", intermediateSize);
    const up = projection("ffn_up", intermediateSize);
    const biases = { gate: gate.bias, up: up.bias };
    const gated = b.linearGlu(mlpInput, gate.weight, up.weight, "silu", biases);
    const down = b.weight(name("ffn_down.weight"), hiddenSize, intermediateSize);
    b.linearAccumulate(gated, down, hidden, b.optionalVector(name("ffn_down.bias"), hiddenSize));
  }
  const normed = b.norm(hidden, "rms", b.vector("output_norm.weight", hiddenSize), epsilon);
  // Models without their own output matrix tie it to the embedding.
  const lmHead = b.optionalWeight("output.weight", vocabSize, hiddenSize) ?? tokenEmbedding;
  return b.finish(normed, lmHead);
}

export const llama: Family = { architectures: ["llama"], buildPlan };
