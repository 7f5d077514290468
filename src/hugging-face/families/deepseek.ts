// DeepSeek V1 (llama's attention) and V2, V3 (latent attention), with routed and shared experts;
// Mistral 4, which keeps V3's block.
import { ropeParameters } from "../common.ts";
import { headDim, latentHalf } from "../conversions.ts";
import type { FolderFamily } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import type { MetadataValues } from "../metadata-values.ts";
import { interleavedNames } from "./llama.ts";

/** GGUF's numbers of what makes router logits weights. */
const gatingFunctions: Readonly<Record<string, number>> = { softmax: 1, sigmoid: 2 };

function experts(config: JsonObject, values: MetadataValues): void {
  const numRouted = config.count("n_routed_experts");
  const numDense = config.count("first_k_dense_replace");
  const numLayers = config.requiredCount("num_hidden_layers");
  const dense = numDense ?? (numRouted === undefined ? numLayers : 0);
  values.u32("leading_dense_block_count", dense);
  const size = config.count("moe_intermediate_size", "intermediate_size");
  values.u32("expert_feed_forward_length", size);
  values.u32("expert_shared_count", config.count("n_shared_experts") ?? 0);
}

export const deepseek: FolderFamily = {
  modelTypes: ["deepseek"],
  architecture: "deepseek",
  metadata: (config, values) => {
    experts(config, values);
    values.u32("rope.dimension_count", headDim(config));
    values.text("rope.scaling.type", "none");
    values.f32("expert_weights_scale", 1);
  },
  names: interleavedNames,
};

export const deepseek2 = {
  modelTypes: ["deepseek_v2", "deepseek_v3", "kimi_k2"],
  architecture: "deepseek2",
  metadata: (config: JsonObject, values: MetadataValues) => {
    experts(config, values);
    const rotaryDim = config.requiredCount("qk_rope_head_dim");
    const latent = config.count("kv_lora_rank") ?? 512;
    values.f32("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps") ?? 1e-6);
    // One latent head serves as keys and values of all heads.
    values.u32("attention.head_count_kv", 1);
    values.u32("attention.q_lora_rank", config.count("q_lora_rank"));
    values.u32("attention.kv_lora_rank", latent);
    values.u32("attention.key_length", latent + rotaryDim);
    values.u32("attention.value_length", latent);
    const keyDim = config.requiredCount("qk_nope_head_dim") + rotaryDim;
    values.u32("attention.key_length_mla", keyDim);
    values.u32("attention.value_length_mla", config.requiredCount("v_head_dim"));
    values.u32("rope.dimension_count", rotaryDim);
    values.u32("expert_group_count", config.count("n_group"));
    values.u32("expert_group_used_count", config.count("topk_group"));
    const scoring = config.text("scoring_func");
    values.u32("expert_gating_func", scoring === undefined ? undefined : gatingOf(config, scoring));
    values.f32("expert_weights_scale", config.number("routed_scaling_factor"));
    if (config.flag("norm_topk_prob")) values.bool("expert_weights_norm", true);
    const scale = ropeParameters(config)?.number("mscale_all_dim");
    values.f32("rope.scaling.yarn_log_multiplier", scale && 0.1 * scale);
  },
  names: {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": [
      { to: "attn_k_b", convert: latentHalf("keys") },
      { to: "attn_v_b", convert: latentHalf("values") },
    ],
    "mlp.gate.e_score_correction_bias": { to: "exp_probs_b", ending: ".bias" },
  },
} satisfies FolderFamily;

/** Experts lie in one tensor, each gate before its up; queries grow with the position. */
export const mistral4: FolderFamily = {
  modelTypes: ["mistral4"],
  architecture: "mistral4",
  metadata: (config, values) => {
    deepseek2.metadata(config, values);
    const rope = ropeParameters(config);
    const growth = rope?.number("llama_4_scaling_beta");
    values.f32("attention.temperature_scale", growth);
    if (growth === undefined) return;
    // Here it follows from the rotations' scaling; llama.cpp wants it said.
    const interval = rope?.count("original_max_position_embeddings");
    values.u32("attention.temperature_length", interval);
  },
  names: {
    ...deepseek2.names,
    "mlp.experts.gate_up_proj": "ffn_gate_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
  },
};

function gatingOf(config: JsonObject, scoring: string): number {
  const number = gatingFunctions[scoring];
  if (number === undefined) throw config.invalid("scoring_func", "softmax or sigmoid");
  return number;
}
