// Gemma 1 to 3: norms multiply by 1 + w, which GGUF stores as one factor.
import { windowMetadata } from "../common.ts";
import { addOne } from "../conversions.ts";
import type { FolderFamily, Targets } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import type { MetadataValues } from "../metadata-values.ts";

const norm = (to: string) => ({ to, convert: addOne });

export const gemma: FolderFamily = {
  modelTypes: ["gemma"],
  architecture: "gemma",
  names: {
    norm: norm("output_norm"),
    input_layernorm: norm("attn_norm"),
    post_attention_layernorm: norm("ffn_norm"),
    // The output matrix is the embedding, whatever else a file holds.
    lm_head: null,
  },
};

const sandwichNames: Readonly<Record<string, Targets>> = {
  ...gemma.names,
  post_attention_layernorm: norm("post_attention_norm"),
  pre_feedforward_layernorm: norm("ffn_norm"),
  post_feedforward_layernorm: norm("post_ffw_norm"),
};

function caps(config: JsonObject, values: MetadataValues): void {
  values.f32("attn_logit_softcapping", config.number("attn_logit_softcapping"));
  values.f32("final_logit_softcapping", config.number("final_logit_softcapping"));
}

export const gemma2: FolderFamily = {
  modelTypes: ["gemma2"],
  architecture: "gemma2",
  metadata: (config, values) => {
    caps(config, values);
    windowMetadata(config, values);
  },
  names: sandwichNames,
};

export const gemma3: FolderFamily = {
  modelTypes: ["gemma3_text", "gemma3"],
  architecture: "gemma3",
  metadata: (config, values) => {
    // Multimodal files leave out what equals the defaults of their library.
    values.u32("context_length", config.count("max_position_embeddings") ?? 131072);
    values.u32("attention.head_count", config.count("num_attention_heads") ?? 8);
    values.u32("attention.head_count_kv", config.count("num_key_value_heads") ?? 4);
    values.f32("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps") ?? 1e-6);
    values.u32("attention.key_length", config.count("head_dim") ?? 256);
    values.u32("attention.value_length", config.count("head_dim") ?? 256);
    if (!values.has("rope.freq_base")) values.f32("rope.freq_base", 1e6);
    caps(config, values);
    windowMetadata(config, values);
  },
  names: {
    ...sandwichNames,
    "self_attn.q_norm": norm("attn_q_norm"),
    "self_attn.k_norm": norm("attn_k_norm"),
  },
};
