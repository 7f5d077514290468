// Qwen 2 and 3, dense and with experts.
import { half, squeeze } from "../conversions.ts";
import type { FolderFamily, Targets } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import type { MetadataValues } from "../metadata-values.ts";

export const qwen2: FolderFamily = { modelTypes: ["qwen2"], architecture: "qwen2" };

export const qwen3: FolderFamily = { modelTypes: ["qwen3"], architecture: "qwen3" };

function expertSizes(config: JsonObject, values: MetadataValues): void {
  values.u32("expert_feed_forward_length", config.count("moe_intermediate_size"));
  const shared = config.count("shared_expert_intermediate_size");
  values.u32("expert_shared_feed_forward_length", shared);
}

/** Experts in one tensor, as newer files have them. */
const stackedNames: Readonly<Record<string, Targets>> = {
  "mlp.experts.gate_up_proj": [
    { to: "ffn_gate_exps", convert: half(0) },
    { to: "ffn_up_exps", convert: half(1) },
  ],
  "mlp.experts.down_proj": "ffn_down_exps",
};

export const qwen2Moe: FolderFamily = {
  modelTypes: ["qwen2_moe"],
  architecture: "qwen2moe",
  metadata: expertSizes,
  names: {
    ...stackedNames,
    "mlp.shared_expert_gate": { to: "ffn_gate_inp_shexp", convert: squeeze },
  },
};

export const qwen3Moe: FolderFamily = {
  modelTypes: ["qwen3_moe"],
  architecture: "qwen3moe",
  metadata: expertSizes,
  names: stackedNames,
};
