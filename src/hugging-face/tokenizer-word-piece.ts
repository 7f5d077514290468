// WordPiece models of tokenizer.json (GGUF's "bert"): GGUF marks the beginnings of words, these
// files their later parts.
import { componentsOf, unknownComponent } from "./components.ts";
import type { JsonObject } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";
import { type FolderVocabulary, TokenType } from "./vocabulary.ts";

const laterMark = "##";

export function wordPieceMetadata(
  json: JsonObject,
  model: JsonObject,
  vocabulary: FolderVocabulary,
  values: MetadataValues,
): void {
  const mark = model.text("continuing_subword_prefix") ?? laterMark;
  if (mark !== laterMark) throw model.invalid("continuing_subword_prefix", `'${laterMark}'`);
  values.text("tokenizer.ggml.model", "bert");
  values.text("tokenizer.ggml.pre", "default");
  for (const step of componentsOf(json, "pre_tokenizer")) {
    if (step.text("type") !== "BertPreTokenizer") throw unknownComponent(step, "pre_tokenizer");
  }
  for (const step of componentsOf(json, "normalizer")) {
    if (step.text("type") !== "BertNormalizer") throw unknownComponent(step, "normalizer");
    for (const key of ["clean_text", "handle_chinese_chars"]) {
      if (step.flag(key) === false) throw step.invalid(key, "true: false is not supported");
    }
    const lowercase = step.flag("lowercase") ?? true;
    values.bool("tokenizer.ggml.normalizer.lowercase", lowercase);
    values.bool("tokenizer.ggml.normalizer.strip_accents", step.flag("strip_accents") ?? lowercase);
  }
  const { tokens, types } = vocabulary;
  tokens.forEach((text, id) => {
    if (types[id] !== TokenType.normal) return;
    tokens[id] = text.startsWith(laterMark) ? text.slice(laterMark.length) : `▁${text}`;
  });
}
