// From tokenizer.json and tokenizer_config.json to the tokenizer metadata of GGUF: which kind it
// is, its vocabulary, and what is added around a text. A component that is not known is an error.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { TinferError } from "../core/errors.ts";
import { chatTemplateMetadata } from "./chat-template.ts";
import { type JsonObject, readFolderJson } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";
import { specialTokenMetadata } from "./special-tokens.ts";
import { bytePairMetadata } from "./tokenizer-bpe.ts";
import { unigramMetadata } from "./tokenizer-unigram.ts";
import { wordPieceMetadata } from "./tokenizer-word-piece.ts";
import { readVocabulary } from "./vocabulary.ts";

export function tokenizerMetadata(
  folder: string,
  config: JsonObject,
  values: MetadataValues,
): void {
  const json = readFolderJson(folder, "tokenizer.json");
  if (json === undefined) {
    checkNoTokenizer(folder);
    values.text("tokenizer.ggml.model", "no_vocab");
    return;
  }
  const model = json.object("model");
  if (model === undefined) throw json.invalid("model", "an object");
  const vocabulary = readVocabulary(json, model, config.count("vocab_size"));
  const kind = model.text("type") ?? (model.has("merges") ? "BPE" : undefined);
  if (kind === "BPE") bytePairMetadata(json, model, vocabulary, values);
  else if (kind === "Unigram") unigramMetadata(json, model, vocabulary, values);
  else if (kind === "WordPiece") wordPieceMetadata(json, model, vocabulary, values);
  else throw json.invalid("model", "of type BPE, Unigram or WordPiece");
  values.texts("tokenizer.ggml.tokens", vocabulary.tokens);
  values.numbers("tokenizer.ggml.token_type", "i32", vocabulary.types);
  specialTokenMetadata({ folder, config, json, vocabulary }, values);
  chatTemplateMetadata(folder, values);
}

/** A folder without any tokenizer still serves `logits --token-ids` and `bench`. */
function checkNoTokenizer(folder: string): void {
  const other = ["tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json"];
  const found = other.find((name) => existsSync(join(folder, name)));
  if (found === undefined) return;
  throw new TinferError("unsupported", `${folder} has ${found} but no tokenizer.json`, {
    hint: "download tokenizer.json too; `AutoTokenizer.from_pretrained(…).save_pretrained` makes it",
  });
}
