// OLMo 2 and 3: norms behind attention and MLP; OLMo 3 has windows in three of four layers.
import { windowMetadata } from "../common.ts";
import type { FolderFamily } from "../family.ts";

export const olmo2: FolderFamily = {
  modelTypes: ["olmo2", "olmo3"],
  architecture: "olmo2",
  metadata: (config, values) => {
    if (config.count("sliding_window") !== undefined) windowMetadata(config, values);
  },
  names: {
    post_attention_layernorm: "post_attention_norm",
    post_feedforward_layernorm: "post_ffw_norm",
  },
};
