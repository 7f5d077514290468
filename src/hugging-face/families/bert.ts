// BERT, RoBERTa, XLM-R and what keeps their form: encoders for embeddings.
import { dirname, join } from "node:path";
import { withoutRows } from "../conversions.ts";
import type { FolderFamily, Targets } from "../family.ts";
import { isFields, type JsonObject, readFolderJson, readFolderList } from "../json-file.ts";
import type { MetadataValues } from "../metadata-values.ts";

const names: Readonly<Record<string, Targets>> = {
  "embeddings.word_embeddings": "token_embd",
  "embeddings.token_type_embeddings": "token_types",
  "embeddings.position_embeddings": "position_embd",
  "embeddings.LayerNorm": "token_embd_norm",
  "attention.self.query": "attn_q",
  "attention.self.key": "attn_k",
  "attention.self.value": "attn_v",
  "attention.output.dense": "attn_output",
  "attention.output.LayerNorm": "attn_output_norm",
  "intermediate.dense": "ffn_up",
  "output.dense": "ffn_down",
  "output.LayerNorm": "layer_output_norm",
  // Heads of the training tasks.
  "embeddings.position_ids": null,
  "pooler.dense": null,
  "cls.predictions": null,
  "cls.predictions.transform.dense": null,
  "cls.predictions.transform.LayerNorm": null,
  "cls.predictions.decoder": null,
  "cls.seq_relationship": null,
};

/** GGUF's numbers: how the vectors of a text's tokens become one. */
const pooling = { none: 0, mean: 1, cls: 2, last: 3, rank: 4 } as const;

export const bert = {
  modelTypes: ["bert"],
  architecture: "bert",
  metadata: (config: JsonObject, values: MetadataValues) => {
    values.bool("attention.causal", false);
    values.u32("pooling_type", pooling[poolingKind(config)]);
    values.u32("tokenizer.ggml.token_type_count", config.count("type_vocab_size") ?? 1);
  },
  names,
} satisfies FolderFamily;

/** Positions are counted from beyond the padding token's id, which GGUF's table leaves away. */
const numUnusedPositions = (config: JsonObject) => 1 + (config.count("pad_token_id") ?? 1);

export const roberta: FolderFamily = {
  modelTypes: ["roberta", "xlm-roberta"],
  architecture: "bert",
  metadata: (config, values) => {
    bert.metadata(config, values);
    const numPositions = config.requiredCount("max_position_embeddings");
    const contextLen = numPositions - numUnusedPositions(config);
    if (contextLen < 1) throw config.invalid("max_position_embeddings", "room for positions");
    values.u32("context_length", contextLen);
    // Two texts are told apart by an end and a beginning: <s> first </s></s> second </s>.
    values.bool("tokenizer.ggml.add_sep_token", true);
    const labels = labelsOf(config);
    if (labels === undefined) return;
    values.u32("pooling_type", pooling.rank);
    values.texts("classifier.output_labels", labels);
  },
  names: {
    ...names,
    "embeddings.position_embeddings": {
      to: "position_embd",
      convert: withoutRows(numUnusedPositions),
    },
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
    // The head of the training task.
    lm_head: null,
    "lm_head.dense": null,
    "lm_head.layer_norm": null,
    "lm_head.decoder": null,
  },
};

/** What a model for pairs of texts scores, in the order of its scores; undefined for others. */
function labelsOf(config: JsonObject): string[] | undefined {
  const architectures = config.list("architectures") ?? [];
  if (!architectures.some((name) => `${name}`.endsWith("ForSequenceClassification"))) {
    return undefined;
  }
  const names = config.object("id2label")?.fields ?? { 0: "LABEL_0", 1: "LABEL_1" };
  const ids = Object.keys(names).toSorted((a, b) => Number(a) - Number(b));
  return ids.map((id) => `${names[id]}`);
}

/** As the folder of a sentence transformer says; other folders ask for no pooling. */
function poolingKind(config: JsonObject): keyof typeof pooling {
  const folder = dirname(config.path);
  const modules = readFolderList(folder, "modules.json") ?? [];
  const module = modules.find((entry) => isFields(entry) && `${entry["type"]}`.endsWith("Pooling"));
  if (!isFields(module)) return "none";
  const path = module["path"];
  // A folder beside it: no way leads out.
  if (typeof path !== "string" || !/^\w[\w.-]*$/.test(path)) {
    throw config.invalid("modules.json", "with a folder's name for each module");
  }
  const own = readFolderJson(join(folder, path), "config.json");
  if (own?.flag("pooling_mode_mean_tokens")) return "mean";
  if (own?.flag("pooling_mode_cls_token")) return "cls";
  if (own?.flag("pooling_mode_lasttoken")) return "last";
  throw (own ?? config).invalid("pooling_mode_mean_tokens", "one of mean, cls and last token");
}
