// What most families share: hyperparameters under their usual keys, names of tensors.
import { TinferError } from "../core/errors.ts";
import { half, headDim } from "./conversions.ts";
import type { Targets } from "./family.ts";
import type { JsonObject } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";

/** Parts of a layer, and names outside of layers without "model.". */
export const commonNames: Readonly<Record<string, Targets>> = {
  embed_tokens: "token_embd",
  norm: "output_norm",
  lm_head: "output",
  input_layernorm: "attn_norm",
  post_attention_layernorm: "ffn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "mlp.gate": "ffn_gate_inp",
  "mlp.experts.#.gate_proj": "ffn_gate.#",
  "mlp.experts.#.up_proj": "ffn_up.#",
  "mlp.experts.#.down_proj": "ffn_down.#",
  // All experts in one tensor, as newer files and adapters have them.
  "mlp.experts.gate_up_proj": [
    { to: "ffn_gate_exps", convert: half(0) },
    { to: "ffn_up_exps", convert: half(1) },
  ],
  "mlp.experts.down_proj": "ffn_down_exps",
  "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
  "mlp.shared_expert.up_proj": "ffn_up_shexp",
  "mlp.shared_expert.down_proj": "ffn_down_shexp",
  "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
  "mlp.shared_experts.up_proj": "ffn_up_shexp",
  "mlp.shared_experts.down_proj": "ffn_down_shexp",
  "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
};

/** What is no weight: tables that follow from the configuration, and states of quantisers. */
export const unusedNames: readonly RegExp[] = [
  /rotary_emb\.(inv_freq|cos_cached|sin_cached)$/,
  /\.(attn|attention)\.(masked_)?bias$/,
  /\.(input|activation|output|k|v)_scale$/,
  /_proj_activation_scale$/,
];

/** Parts of multimodal models beside their language model. */
export const otherTowers = new RegExp(
  `^(model\\.)?(${[
    "vision_(tower|model|embed_tokens)|visual|multi_modal_projector|patch_merger",
    "audio_tower|embed_(vision|audio)|mtp",
  ].join("|")})\\.`,
);

/** Hyperparameters that nearly all families name alike. */
export function commonMetadata(config: JsonObject, values: MetadataValues): void {
  values.u32("block_count", numLayers(config));
  values.u32(
    "context_length",
    config.count("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"),
  );
  values.u32("embedding_length", config.count("hidden_size", "n_embd", "d_model", "dim"));
  values.u32(
    "feed_forward_length",
    config.count("intermediate_size", "n_inner", "ffn_hidden_size", "hidden_dim"),
  );
  values.u32("attention.head_count", config.count("num_attention_heads", "n_head", "num_heads"));
  values.u32("attention.head_count_kv", config.count("num_key_value_heads", "n_head_kv"));
  values.f32("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps", "norm_eps"));
  values.f32(
    "attention.layer_norm_epsilon",
    config.number("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
  );
  values.u32("attention.key_length", config.count("head_dim"));
  values.u32("attention.value_length", config.count("head_dim"));
  values.u32("vocab_size", config.count("vocab_size"));
  values.u32(
    "expert_count",
    config.count("num_local_experts", "num_experts", "n_routed_experts") || undefined,
  );
  values.u32("expert_used_count", config.count("num_experts_per_tok", "num_experts_per_token"));
  rotaryMetadata(config, values);
}

/** As models/model-config.ts bounds them; lists of one entry per layer are made before that. */
const mostLayers = 1024;

export function numLayers(config: JsonObject): number {
  const keys = ["num_hidden_layers", "n_layer", "n_layers", "num_layers"];
  const count = config.requiredCount(...keys);
  if (count >= 1 && count <= mostLayers) return count;
  throw config.invalid(keys.find((key) => config.has(key))!, `a number from 1 to ${mostLayers}`);
}

/**
 * The window, and which layers have it: as the file says for each or counts them, else the family's
 * pattern. Where none has it there is none.
 */
export function windowMetadata(config: JsonObject, values: MetadataValues): void {
  const slides = config.list("layer_types")?.map((type) => type === "sliding_attention");
  const period = config.count("sliding_window_pattern", "_sliding_window_pattern");
  if (slides?.includes(true) === false || (slides === undefined && period === 1)) return;
  values.u32("attention.sliding_window", config.count("sliding_window"));
  if (slides !== undefined) values.bools("attention.sliding_window_pattern", slides);
  else values.u32("attention.sliding_window_pattern", period);
}

/** `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta` (before). */
export function ropeParameters(config: JsonObject): JsonObject | undefined {
  const parameters = config.object("rope_parameters") ?? config.object("rope_scaling");
  return parameters?.object("full_attention") ?? parameters;
}

export function ropeType(parameters: JsonObject | undefined): string {
  return parameters?.text("rope_type") ?? parameters?.text("type") ?? "default";
}

function rotaryMetadata(config: JsonObject, values: MetadataValues): void {
  const rope = ropeParameters(config);
  const theta = rope?.number("rope_theta") ?? config.number("rope_theta", "rotary_emb_base");
  values.f32("rope.freq_base", theta);
  const ofWindows = config.object("rope_parameters")?.object("sliding_attention");
  const windowTheta =
    ofWindows?.number("rope_theta") ?? config.number("rope_local_base_freq", "local_rope_theta");
  values.f32("rope.freq_base_swa", windowTheta);
  const share = config.number("partial_rotary_factor") ?? rope?.number("partial_rotary_factor");
  values.u32("rope.dimension_count", share && Math.floor(headDim(config) * share));
  const type = ropeType(rope);
  if (rope === undefined || ["default", "llama3", "mrope", "proportional"].includes(type)) return;
  if (type === "linear" || type === "yarn") {
    values.text("rope.scaling.type", type);
    values.f32("rope.scaling.factor", rope.requiredNumber("factor"));
    if (type === "linear") return;
    const original = rope.count("original_max_position_embeddings");
    values.u32("rope.scaling.original_context_length", original);
    values.f32("rope.scaling.yarn_ext_factor", rope.number("extrapolation_factor"));
    values.f32("rope.scaling.yarn_attn_factor", rope.number("attention_factor", "attn_factor"));
    values.f32("rope.scaling.yarn_beta_fast", rope.number("beta_fast"));
    values.f32("rope.scaling.yarn_beta_slow", rope.number("beta_slow"));
  } else if (type === "longrope" || type === "su") {
    values.text("rope.scaling.type", "longrope");
  } else {
    throw new TinferError("unsupported", `${config.path}: rope type '${type}' is not known`, {
      hint: "known are default, linear, yarn, llama3 and longrope",
    });
  }
}
