// What config.json of each golden model has as a folder beyond the usual keys.
import { readGguf } from "../../src/weights/gguf.ts";
import { readTensorFloats } from "../../src/weights/tensor-content.ts";

export type OwnConfig = Record<string, unknown> & { model_type: string };

const yarn = {
  rope_type: "yarn",
  original_max_position_embeddings: 32,
  beta_fast: 32,
  beta_slow: 1,
};
const granite = { attention_multiplier: 0.15, embedding_multiplier: 12, residual_multiplier: 0.35 };
const latent = {
  ...{ kv_lora_rank: 32, qk_rope_head_dim: 16, qk_nope_head_dim: 16, head_dim: null },
  ...{ first_k_dense_replace: 1, num_experts: null, n_routed_experts: 8 },
};

/** By the name of the golden model. */
export const folderCases: Readonly<Record<string, OwnConfig>> = {
  llama2: { model_type: "llama" },
  "mistral-window": { model_type: "mistral" },
  mixtral: { model_type: "mixtral" },
  smollm3: { model_type: "smollm3", tie_word_embeddings: true },
  mistral3: {
    model_type: "ministral3",
    rope_parameters: {
      ...{ ...yarn, factor: 4, beta_fast: 4, rope_theta: 1e6 },
      ...{ mscale_all_dim: 1, llama_4_scaling_beta: 0.1 },
    },
  },
  granite: { model_type: "granite", ...granite, logits_scaling: 8 },
  "granitemoe-shared": {
    ...{ model_type: "granitemoeshared", ...granite, logits_scaling: 6 },
    shared_intermediate_size: 64,
  },
  deepseek: {
    ...{ model_type: "deepseek", first_k_dense_replace: 1, n_shared_experts: 2 },
    ...{ num_experts: null, n_routed_experts: 8 },
  },
  "deepseek2-v3": {
    ...{ model_type: "deepseek_v3", ...latent, q_lora_rank: 48, v_head_dim: 24 },
    ...{ n_group: 4, topk_group: 2, scoring_func: "sigmoid", norm_topk_prob: true },
    ...{ routed_scaling_factor: 2.5, n_shared_experts: 1 },
    rope_scaling: { ...yarn, factor: 4, mscale_all_dim: 1 },
  },
  "deepseek2-lite": {
    ...{ model_type: "deepseek_v2", ...latent, v_head_dim: 16, scoring_func: "softmax" },
    ...{ n_shared_experts: 2, routed_scaling_factor: 1 },
    rope_scaling: { ...yarn, factor: 4, mscale_all_dim: 0.7069999724626541 },
  },
  mistral4: {
    ...{ model_type: "mistral4", ...latent, q_lora_rank: 48, v_head_dim: 32 },
    ...{ first_k_dense_replace: 0, n_group: 1, topk_group: 1, norm_topk_prob: true },
    ...{ routed_scaling_factor: 1, n_shared_experts: 1, num_key_value_heads: 4 },
    rope_parameters: { ...yarn, factor: 4, mscale_all_dim: 1, llama_4_scaling_beta: 0.1 },
  },
  llama4: {
    ...{ model_type: "llama4_text", intermediate_size: 32, intermediate_size_mlp: 96 },
    ...{ interleave_moe_layer_step: 2, moe_layers: [1, 3], no_rope_layers: [1, 1, 1, 0] },
    ...{ attention_chunk_size: 8192, use_qk_norm: true, attn_temperature_tuning: 4 },
    rope_scaling: {
      ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
      original_max_position_embeddings: 64,
    },
  },
  "gpt-oss": {
    ...{ model_type: "gpt_oss", intermediate_size: 32 },
    rope_scaling: { ...yarn, original_max_position_embeddings: 64, factor: 32 },
  },
  qwen2: { model_type: "qwen2" },
  qwen3: { model_type: "qwen3" },
  qwen2moe: { model_type: "qwen2_moe", shared_expert_intermediate_size: 96 },
  qwen3moe: { model_type: "qwen3_moe" },
  gemma: { model_type: "gemma" },
  gemma2: { model_type: "gemma2", attn_logit_softcapping: 3, final_logit_softcapping: 5 },
  gemma3: { model_type: "gemma3_text" },
  "gemma3-linear-rope": {
    model_type: "gemma3_text",
    rope_scaling: { rope_type: "linear", factor: 8 },
  },
  phi2: { model_type: "phi", partial_rotary_factor: 0.5 },
  olmo2: { model_type: "olmo2" },
  olmo3: {
    model_type: "olmo3",
    rope_scaling: { ...yarn, factor: 8, attention_factor: 1.2079441547393799 },
  },
  glm4: { model_type: "glm4", partial_rotary_factor: 0.5 },
  "command-r": { model_type: "cohere", logit_scale: 0.0625 },
  starcoder2: { model_type: "starcoder2" },
  gpt2: { model_type: "gpt2" },
};

/** Factors of long contexts are tensors in GGUF and arrays in config.json. */
export function longRope(path: string): Record<string, unknown> {
  const header = readGguf(path);
  const factors = (kind: string) => [
    ...readTensorFloats(header, header.tensors.get(`rope_factors_${kind}.weight`)!),
  ];
  return {
    original_max_position_embeddings: 256,
    rope_scaling: {
      ...{ type: "longrope", long_factor: factors("long"), short_factor: factors("short") },
    },
  };
}
