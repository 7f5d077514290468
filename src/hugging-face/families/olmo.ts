// OLMo 2 and 3: norms behind attention and MLP; OLMo 3 has windows in three of four layers.
import { numLayers } from "../common.ts";
import type { FolderFamily } from "../family.ts";

export const olmo2: FolderFamily = {
  modelTypes: ["olmo2", "olmo3"],
  architecture: "olmo2",
  metadata: (config, values) => {
    const windowLen = config.count("sliding_window");
    if (windowLen === undefined) return;
    values.u32("attention.sliding_window", windowLen);
    const types = config.list("layer_types");
    const slides =
      types?.map((type) => type === "sliding_attention") ??
      Array.from({ length: numLayers(config) }, (_, layer) => (layer + 1) % 4 !== 0);
    values.bools("attention.sliding_window_pattern", slides);
  },
  names: {
    post_attention_layernorm: "post_attention_norm",
    post_feedforward_layernorm: "post_ffw_norm",
  },
};
