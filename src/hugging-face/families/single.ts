// Families of one table each: GLM-4, Command R, StarCoder 2, GPT-2.
import { headDim, hiddenSize, transpose } from "../conversions.ts";
import type { FolderFamily } from "../family.ts";

export const glm4: FolderFamily = {
  modelTypes: ["glm4"],
  architecture: "glm4",
  metadata: (config, values) => {
    if (values.has("rope.dimension_count")) return;
    values.u32("rope.dimension_count", Math.floor(headDim(config) * 0.5));
  },
  names: {
    post_self_attn_layernorm: "post_attention_norm",
    post_mlp_layernorm: "post_ffw_norm",
    "mlp.gate_up_proj": "ffn_up",
  },
};

export const cohere: FolderFamily = {
  modelTypes: ["cohere"],
  architecture: "command-r",
  metadata: (config, values) => {
    values.f32("logit_scale", config.requiredNumber("logit_scale"));
    // The trained length; the other key is what the library's tests use.
    values.u32(
      "context_length",
      config.count("model_max_length") ?? config.count("max_position_embeddings"),
    );
    values.text("rope.scaling.type", "none");
  },
};

export const starcoder2: FolderFamily = {
  modelTypes: ["starcoder2"],
  architecture: "starcoder2",
  names: { "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down" },
};

/** Its matrices are stored with inputs as rows. */
export const gpt2: FolderFamily = {
  modelTypes: ["gpt2"],
  architecture: "gpt2",
  metadata: (config, values) => {
    values.u32("feed_forward_length", config.count("n_inner") ?? 4 * hiddenSize(config));
  },
  names: {
    wte: "token_embd",
    wpe: "position_embd",
    ln_f: "output_norm",
    ln_1: "attn_norm",
    ln_2: "ffn_norm",
    "attn.c_attn": { to: "attn_qkv", convert: transpose },
    "attn.c_proj": { to: "attn_output", convert: transpose },
    "mlp.c_fc": { to: "ffn_up", convert: transpose },
    "mlp.c_proj": { to: "ffn_down", convert: transpose },
  },
};
