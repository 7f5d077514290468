// Unigram models of tokenizer.json: SentencePiece's unigram (GGUF's "t5").
import {
  componentsOf,
  forms,
  metaspacePrefix,
  patternRegex,
  patternText,
  unknownComponent,
} from "./components.ts";
import type { JsonObject } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";
import type { FolderVocabulary } from "./vocabulary.ts";

export function unigramMetadata(
  json: JsonObject,
  model: JsonObject,
  vocabulary: FolderVocabulary,
  values: MetadataValues,
): void {
  if (model.flag("byte_fallback")) {
    throw unknownComponent(json, "model", "a Unigram model with byte_fallback");
  }
  const { scores, tokens } = vocabulary;
  if (scores === undefined) throw model.invalid("vocab", "an array of [text, score]");
  values.text("tokenizer.ggml.model", "t5");
  values.text("tokenizer.ggml.pre", "default");
  const all = tokens.map((_, id) => scores[id] ?? -1000);
  values.numbers("tokenizer.ggml.scores", "f32", all.map(Math.fround));
  let mergesSpaces = normalizerMergesSpaces(json, values);
  let addsPrefix = false;
  for (const step of componentsOf(json, "pre_tokenizer")) {
    const type = step.text("type");
    if (type === "WhitespaceSplit") mergesSpaces = true;
    else if (type === "Metaspace") addsPrefix = metaspacePrefix(step) !== "never";
    else throw unknownComponent(step, "pre_tokenizer");
  }
  values.bool("tokenizer.ggml.add_space_prefix", addsPrefix);
  values.bool("tokenizer.ggml.remove_extra_whitespaces", mergesSpaces);
}

/** Reads the normalizer; true if runs of spaces become one. */
function normalizerMergesSpaces(json: JsonObject, values: MetadataValues): boolean {
  let merges = false;
  for (const step of componentsOf(json, "normalizer")) {
    const type = step.text("type") ?? "";
    if (type === "Precompiled") {
      const map = Buffer.from(step.text("precompiled_charsmap") ?? "", "base64");
      values.numbers("tokenizer.ggml.precompiled_charsmap", "u8", [...map]);
    } else if (forms[type] !== undefined) {
      values.text("tokenizer.ggml.normalizer.form", forms[type]);
    } else if (type === "Replace" && / ?\{2,\}$/.test(patternRegex(step) ?? "")) {
      merges = true;
    } else if (type === "Strip") {
      merges ||= step.flag("strip_left") === true && step.flag("strip_right") === true;
    } else if (!(type === "Replace" && patternText(step) === " ")) {
      throw unknownComponent(step, "normalizer");
    }
  }
  return merges;
}
