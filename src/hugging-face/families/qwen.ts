// Qwen 2 and 3, dense and with experts.
import { squeeze } from "../conversions.ts";
import type { FolderFamily } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import type { MetadataValues } from "../metadata-values.ts";

export const qwen2: FolderFamily = { modelTypes: ["qwen2"], architecture: "qwen2" };

export const qwen3: FolderFamily = { modelTypes: ["qwen3"], architecture: "qwen3" };

function expertSizes(config: JsonObject, values: MetadataValues): void {
  values.u32("expert_feed_forward_length", config.count("moe_intermediate_size"));
  const shared = config.count("shared_expert_intermediate_size");
  values.u32("expert_shared_feed_forward_length", shared);
}

export const qwen2Moe: FolderFamily = {
  modelTypes: ["qwen2_moe"],
  architecture: "qwen2moe",
  metadata: expertSizes,
  names: { "mlp.shared_expert_gate": { to: "ffn_gate_inp_shexp", convert: squeeze } },
};

export const qwen3Moe: FolderFamily = {
  modelTypes: ["qwen3_moe"],
  architecture: "qwen3moe",
  metadata: expertSizes,
};
