// The text side of a model file: tokenizer, chat template, names of special tokens. Read on the
// main thread, apart from the engine, which knows token ids only.
import { createTokenizer } from "../tokenizer/create-tokenizer.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { requireNoAdapter } from "../weights/lora-file.ts";
import { getString } from "../weights/metadata.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import { openModel } from "./open-model.ts";

export interface ModelText {
  readonly header: ModelHeader;
  readonly tokenizer: Tokenizer;
  /** Jinja source of the file's chat template, if it has one. */
  readonly chatTemplate: string | undefined;
  /** What a model that ranks texts reads, with {query} and {document} in it, if the file says. */
  readonly rankTemplate: string | undefined;
}

export function openModelText(path: string): ModelText {
  const header = openModel(path);
  requireNoAdapter(header);
  return {
    header,
    tokenizer: createTokenizer(header.metadata),
    chatTemplate: getString(header.metadata, "tokenizer.chat_template"),
    rankTemplate: getString(header.metadata, "tokenizer.chat_template.rerank"),
  };
}
