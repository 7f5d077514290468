// Granite, dense and with experts: llama's block with four factors.
import { half, hiddenSize, numHeads } from "../conversions.ts";
import type { FolderFamily } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import type { MetadataValues } from "../metadata-values.ts";
import { interleavedNames } from "./llama.ts";

function factors(config: JsonObject, values: MetadataValues): void {
  values.delete("attention.key_length");
  values.delete("attention.value_length");
  values.u32("rope.dimension_count", Math.floor(hiddenSize(config) / numHeads(config)));
  values.f32("attention.scale", config.number("attention_multiplier"));
  values.f32("embedding_scale", config.number("embedding_multiplier"));
  values.f32("residual_scale", config.number("residual_multiplier"));
  values.f32("logit_scale", config.number("logits_scaling"));
}

export const granite: FolderFamily = {
  modelTypes: ["granite"],
  architecture: "granite",
  metadata: factors,
  names: interleavedNames,
};

export const graniteMoe: FolderFamily = {
  modelTypes: ["granitemoe", "granitemoeshared"],
  architecture: "granitemoe",
  metadata: (config, values) => {
    factors(config, values);
    const shared = config.count("shared_intermediate_size") || undefined;
    values.u32("expert_shared_feed_forward_length", shared);
  },
  names: {
    ...interleavedNames,
    "block_sparse_moe.router.layer": "ffn_gate_inp",
    "block_sparse_moe.input_linear": [
      { to: "ffn_gate_exps", convert: half(0) },
      { to: "ffn_up_exps", convert: half(1) },
    ],
    "block_sparse_moe.output_linear": "ffn_down_exps",
    "shared_mlp.input_linear": [
      { to: "ffn_gate_shexp", convert: half(0) },
      { to: "ffn_up_shexp", convert: half(1) },
    ],
    "shared_mlp.output_linear": "ffn_down_shexp",
  },
};
