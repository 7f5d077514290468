// Llama 4: experts stored with inputs as rows, each gate beside its up; the pairs of a rotation lie
// side by side already. GGUF has no keys for its chunks, positions and norms of heads: the model
// code has those of the published models, so that any other are refused here.
import { TinferError } from "../../core/errors.ts";
import { numLayers } from "../common.ts";
import { headDim, transpose, transposedHalf } from "../conversions.ts";
import type { FolderFamily } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import { llama3Factors } from "./llama.ts";

/** Every so many layers see all positions and have no rotations. */
const globalPeriod = 4;
/** What published models have, where config.json says anything. */
const trained = { attention_chunk_size: 8192, floor_scale: 8192, attn_scale: 0.1 } as const;
/** Maverick alone has no norms on queries and keys. */
const numExpertsWithoutHeadNorm = 128;

const expertInterval = (config: JsonObject) => config.count("interleave_moe_layer_step") ?? 1;

function checkTrained(config: JsonObject): void {
  for (const [key, value] of Object.entries(trained)) {
    if ((config.number(key) ?? value) !== value) throw differs(config, key, `${value}`);
  }
  if (config.fields["attention_chunk_size"] === null) {
    throw differs(config, "attention_chunk_size", `${trained.attention_chunk_size}`);
  }
  // Early files have the number of layers here.
  const tuning = config.get("attn_temperature_tuning") ?? true;
  if (!tuning) throw differs(config, "attn_temperature_tuning", "true");
  const hasHeadNorm = config.count("num_local_experts") !== numExpertsWithoutHeadNorm;
  if ((config.flag("use_qk_norm") ?? true) !== hasHeadNorm) {
    throw differs(config, "use_qk_norm", `${hasHeadNorm} for this number of experts`);
  }
  checkLayers(config);
}

/** Lists that say for each layer what follows from its index. */
function checkLayers(config: JsonObject): void {
  const layers = Array.from({ length: numLayers(config) }, (_, index) => index);
  const isGlobal = (index: number) => (index + 1) % globalPeriod === 0;
  const interval = expertInterval(config);
  const lists = {
    no_rope_layers: layers.map((index) => (isGlobal(index) ? 0 : 1)),
    layer_types: layers.map((index) => (isGlobal(index) ? "full_attention" : "chunked_attention")),
    moe_layers: layers.filter((index) => interval > 0 && (index + 1) % interval === 0),
  };
  for (const [key, wanted] of Object.entries(lists)) {
    const list = config.list(key) ?? [];
    // An empty one stands for the usual.
    if (list.length > 0 && JSON.stringify(list) !== JSON.stringify(wanted)) {
      throw differs(config, key, JSON.stringify(wanted).slice(0, 80));
    }
  }
}

function differs(config: JsonObject, key: string, wanted: string): TinferError {
  const shown = JSON.stringify(config.fields[key]).slice(0, 80);
  const text = `${config.path}: a Llama 4 with '${key}' ${shown} is not known, only ${wanted}`;
  return new TinferError("unsupported", text, {
    hint: "this variant was trained otherwise than Scout and Maverick; take one of those",
  });
}

export const llama4: FolderFamily = {
  modelTypes: ["llama4_text", "llama4"],
  architecture: "llama4",
  metadata: (config, values) => {
    checkTrained(config);
    values.u32("rope.dimension_count", headDim(config));
    values.u32("feed_forward_length", config.requiredCount("intermediate_size_mlp"));
    values.u32("expert_feed_forward_length", config.requiredCount("intermediate_size"));
    values.u32("interleave_moe_layer_step", expertInterval(config));
  },
  names: {
    "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.up_proj": "ffn_up",
    "feed_forward.down_proj": "ffn_down",
    "feed_forward.router": "ffn_gate_inp",
    "feed_forward.experts.gate_up_proj": [
      { to: "ffn_gate_exps", convert: transposedHalf(0) },
      { to: "ffn_up_exps", convert: transposedHalf(1) },
    ],
    "feed_forward.experts.down_proj": { to: "ffn_down_exps", convert: transpose },
    // Quantisers store a matrix per expert, with outputs as rows.
    "feed_forward.experts.#.gate_proj": "ffn_gate.#",
    "feed_forward.experts.#.up_proj": "ffn_up.#",
    "feed_forward.experts.#.down_proj": "ffn_down.#",
    "feed_forward.shared_expert.gate_proj": "ffn_gate_shexp",
    "feed_forward.shared_expert.up_proj": "ffn_up_shexp",
    "feed_forward.shared_expert.down_proj": "ffn_down_shexp",
  },
  extraTensors: llama3Factors,
};
