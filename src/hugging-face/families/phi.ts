// Phi 2, 3, 4 and their mixture of experts.
import type { DerivedTensor } from "../../weights/model-header.ts";
import { derivedTensor } from "../../weights/rows.ts";
import { ropeParameters, ropeType } from "../common.ts";
import { headDim } from "../conversions.ts";
import type { FolderFamily } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import type { MetadataValues } from "../metadata-values.ts";
import { mixtralNames } from "./llama.ts";

export const phi2: FolderFamily = {
  modelTypes: ["phi"],
  architecture: "phi2",
  names: {
    final_layernorm: "output_norm",
    "self_attn.dense": "attn_output",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
  },
};

const originalContextLen = (config: JsonObject) =>
  ropeParameters(config)?.count("original_max_position_embeddings") ??
  config.count("original_max_position_embeddings");

function longContext(config: JsonObject, values: MetadataValues): void {
  const original = originalContextLen(config);
  const longest = config.requiredCount("max_position_embeddings");
  values.u32("rope.scaling.original_context_length", original);
  if (!values.has("rope.dimension_count")) values.u32("rope.dimension_count", headDim(config));
  // 0 marks models without a window.
  values.u32("attention.sliding_window", config.count("sliding_window") ?? 0);
  // The factors are tensors; this family's files do not name the scaling besides.
  values.delete("rope.scaling.type");
  const rope = ropeParameters(config);
  if (rope === undefined || original === undefined || !rope.has("long_factor")) return;
  const stretch = longest / original;
  const isYarn = ropeType(rope) === "yarn";
  const temperature = isYarn
    ? 0.1 * Math.log(stretch) + 1
    : Math.sqrt(1 + Math.log(stretch) / Math.log(original));
  values.f32("rope.scaling.attn_factor", stretch > 1 ? temperature : 1);
}

function longFactors(config: JsonObject): DerivedTensor[] {
  const rope = ropeParameters(config);
  const tensors: DerivedTensor[] = [];
  for (const kind of ["long", "short"] as const) {
    const factors = rope?.numbers(`${kind}_factor`);
    if (factors === undefined) continue;
    const read = () => new Uint8Array(Float32Array.from(factors).buffer);
    const rows = { type: "f32" as const, numRows: 1, cols: factors.length, read };
    tensors.push(derivedTensor(`rope_factors_${kind}.weight`, "f32", [factors.length], rows));
  }
  return tensors;
}

export const phi3: FolderFamily = {
  modelTypes: ["phi3"],
  architecture: "phi3",
  metadata: longContext,
  names: { "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up" },
  extraTensors: longFactors,
};

export const phiMoe: FolderFamily = {
  modelTypes: ["phimoe"],
  architecture: "phimoe",
  metadata: longContext,
  names: mixtralNames,
  extraTensors: longFactors,
};
