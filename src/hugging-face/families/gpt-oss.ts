// gpt-oss: attention sinks, windows, and experts, most often in 4 bits, whose gate and up rows
// alternate.
import { windowMetadata } from "../common.ts";
import { half, halfOfVectors, transpose, transposedHalf } from "../conversions.ts";
import type { FolderFamily } from "../family.ts";

export const gptOss: FolderFamily = {
  modelTypes: ["gpt_oss"],
  architecture: "gpt-oss",
  metadata: (config, values) => {
    windowMetadata(config, values);
    values.u32("expert_feed_forward_length", config.count("intermediate_size"));
  },
  names: {
    post_attention_layernorm: "post_attention_norm",
    "self_attn.sinks": "attn_sinks",
    "mlp.router": "ffn_gate_inp",
    "mlp.experts.gate_up_proj_blocks": [
      { to: "ffn_gate_exps", convert: half(0, "alternating") },
      { to: "ffn_up_exps", convert: half(1, "alternating") },
    ],
    "mlp.experts.gate_up_proj_scales": null,
    // Dequantised, with inputs as rows.
    "mlp.experts.gate_up_proj": [
      { to: "ffn_gate_exps", convert: transposedHalf(0, "alternating") },
      { to: "ffn_up_exps", convert: transposedHalf(1, "alternating") },
    ],
    "mlp.experts.gate_up_proj_bias": [
      { to: "ffn_gate_exps", ending: ".bias", convert: halfOfVectors(0) },
      { to: "ffn_up_exps", ending: ".bias", convert: halfOfVectors(1) },
    ],
    "mlp.experts.down_proj_blocks": "ffn_down_exps",
    "mlp.experts.down_proj_scales": null,
    "mlp.experts.down_proj": { to: "ffn_down_exps", convert: transpose },
    "mlp.experts.down_proj_bias": { to: "ffn_down_exps", ending: ".bias" },
  },
};
