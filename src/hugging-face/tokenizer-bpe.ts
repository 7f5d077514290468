// Byte-pair encodings of tokenizer.json: over bytes with a pretokenizer (GGUF's "gpt2"), or over
// characters with U+2581 for spaces and bytes for what is no token (GGUF's "llama").
import {
  componentsOf,
  forms,
  metaspacePrefix,
  patternText,
  type SpacePrefix,
  unknownComponent,
} from "./components.ts";
import type { JsonObject } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";
import { pretokenizerMetadata } from "./pretokenizer.ts";
import { type FolderVocabulary, TokenType } from "./vocabulary.ts";

const byteToken = /^<0x[0-9A-F]{2}>$/;
/** Tokens that no merge makes come last where scores decide. */
const worstScore = -1e6;

export function bytePairMetadata(
  json: JsonObject,
  model: JsonObject,
  vocabulary: FolderVocabulary,
  values: MetadataValues,
): void {
  for (const key of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if ((model.text(key) ?? "") !== "") throw model.invalid(key, "nothing: it is not supported");
  }
  if ((model.number("dropout") ?? 0) > 0) throw model.invalid("dropout", "none");
  const merges = readMerges(model);
  values.texts("tokenizer.ggml.merges", merges);
  const steps = componentsOf(json, "pre_tokenizer");
  if (steps.some((step) => step.text("type") === "ByteLevel")) {
    values.text("tokenizer.ggml.model", "gpt2");
    byteLevelNormalizer(json, values);
    pretokenizerMetadata(steps, model.flag("ignore_merges") ?? false, values);
    return;
  }
  if (model.flag("byte_fallback") !== true) {
    throw unknownComponent(
      json,
      "model",
      "byte-pair encoding over neither bytes nor byte_fallback",
    );
  }
  values.text("tokenizer.ggml.model", "llama");
  values.text("tokenizer.ggml.pre", "default");
  prefixMetadata(spacePrefix(json, steps, values), values);
  values.numbers("tokenizer.ggml.scores", "f32", scoresOf(vocabulary, merges));
  vocabulary.tokens.forEach((text, id) => {
    const isNormal = vocabulary.types[id] === TokenType.normal;
    if (isNormal && byteToken.test(text)) vocabulary.types[id] = TokenType.byte;
  });
}

/** Merges as "left right". */
function readMerges(model: JsonObject): string[] {
  const merges = model.list("merges");
  if (merges === undefined) throw model.invalid("merges", "an array");
  return merges.map((merge) => {
    const parts = typeof merge === "string" ? merge.split(" ") : merge;
    const isPair = Array.isArray(parts) && parts.length === 2;
    if (isPair && parts.every((part) => typeof part === "string" && !/^$| /.test(part))) {
      return parts.join(" ");
    }
    throw model.invalid("merges", `pairs of texts, not ${JSON.stringify(merge)}`);
  });
}

function byteLevelNormalizer(json: JsonObject, values: MetadataValues): void {
  for (const step of componentsOf(json, "normalizer")) {
    const form = forms[step.text("type") ?? ""];
    if (form === undefined) throw unknownComponent(step, "normalizer");
    values.text("tokenizer.ggml.normalizer.form", form);
  }
}

/** Reads all steps that turn spaces into marks; any other is an error. */
function spacePrefix(
  json: JsonObject,
  steps: readonly JsonObject[],
  values: MetadataValues,
): SpacePrefix {
  let prefix: SpacePrefix = "never";
  let marksSpaces = false;
  for (const step of componentsOf(json, "normalizer")) {
    const type = step.text("type") ?? "";
    if (type === "Prepend" && step.text("prepend") === "▁") {
      prefix = "doubled";
    } else if (type === "Replace" && patternText(step) === " " && step.text("content") === "▁") {
      marksSpaces = true;
    } else if (forms[type] !== undefined) {
      values.text("tokenizer.ggml.normalizer.form", forms[type]);
    } else {
      throw unknownComponent(step, "normalizer");
    }
  }
  for (const step of steps) {
    const type = step.text("type");
    if (type === "Metaspace") {
      prefix = metaspacePrefix(step);
      marksSpaces = true;
    } else if (!(type === "Split" && patternText(step) === " " && marksSpaces)) {
      // A split at spaces finds none where all are marks.
      throw unknownComponent(step, "pre_tokenizer");
    }
  }
  if (!marksSpaces) throw unknownComponent(json, "normalizer", "a text whose spaces stay spaces");
  return prefix;
}

const spacePrefixKey = "tokenizer.ggml.space_prefix";

function prefixMetadata(prefix: SpacePrefix, values: MetadataValues): void {
  values.bool("tokenizer.ggml.add_space_prefix", prefix !== "never");
  // GGUF's own readers always double it.
  if (prefix !== "doubled" && prefix !== "never") values.text(spacePrefixKey, prefix);
}

/** What an earlier merge makes scores better: readers without merges then merge alike. */
function scoresOf({ tokens, ids }: FolderVocabulary, merges: readonly string[]): number[] {
  const scores = new Array<number>(tokens.length).fill(worstScore);
  merges.forEach((merge, rank) => {
    const id = ids.get(merge.replace(" ", ""));
    if (id !== undefined && scores[id] === worstScore) scores[id] = -rank;
  });
  return scores;
}
