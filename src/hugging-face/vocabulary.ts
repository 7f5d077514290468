// The tokens of a tokenizer.json by id: the model's own and those that were added to it.
import { TinferError } from "../core/errors.ts";
import { isFields, JsonObject } from "./json-file.ts";

/** Highest id plus one; as the rest of tinfer bounds vocabularies. */
const maxSize = 2 ** 24;

/** The numbers of GGUF's token types. */
export const TokenType = {
  normal: 1,
  unknown: 2,
  control: 3,
  userDefined: 4,
  unused: 5,
  byte: 6,
} as const;

export interface AddedToken {
  readonly id: number;
  readonly text: string;
  readonly isSpecial: boolean;
  readonly stripsLeft: boolean;
  readonly stripsRight: boolean;
}

export interface FolderVocabulary {
  /** [size] texts; ids that have none are "[PAD<id>]". */
  readonly tokens: string[];
  /** [size] `TokenType`. */
  readonly types: number[];
  readonly added: readonly AddedToken[];
  readonly ids: ReadonlyMap<string, number>;
  /** Scores of a Unigram model, by id. */
  readonly scores: readonly number[] | undefined;
}

/** Tokens past `wantedSize`, the rows of the embedding, cannot be used and are left out. */
export function readVocabulary(
  json: JsonObject,
  model: JsonObject,
  wantedSize: number | undefined,
): FolderVocabulary {
  const { entries, scores } = ownTokens(model);
  const added = readAdded(json);
  for (const { text, id } of added) entries.push([text, id]);
  let size = wantedSize ?? 0;
  for (const [text, id] of entries) {
    const isId = Number.isInteger(id) && id >= 0 && id < maxSize;
    if (!isId) throw wrong(json, `token '${text.slice(0, 40)}' has the id ${id}`);
    if (wantedSize === undefined) size = Math.max(size, id + 1);
  }
  if (size > maxSize) throw wrong(json, `a vocabulary of ${size} tokens is too large`);
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`);
  const types = new Array<number>(size).fill(TokenType.unused);
  const ids = new Map<string, number>();
  for (const [text, id] of entries) {
    if (id >= size) continue;
    tokens[id] = text;
    types[id] = TokenType.normal;
    ids.set(text, id);
  }
  for (const { id, isSpecial } of added) {
    if (id < size) types[id] = isSpecial ? TokenType.control : TokenType.userDefined;
  }
  const unknown = model.get("unk_token");
  const unknownId =
    typeof unknown === "string" ? ids.get(unknown) : (model.count("unk_id") ?? undefined);
  if (unknownId !== undefined && unknownId < size) types[unknownId] = TokenType.unknown;
  return { tokens, types, added: added.filter(({ id }) => id < size), ids, scores };
}

function wrong(json: JsonObject, problem: string): TinferError {
  return new TinferError("invalidFile", `${json.path}: ${problem}`, {
    hint: "download tokenizer.json again",
  });
}

function ownTokens(model: JsonObject) {
  const vocab = model.get("vocab");
  if (Array.isArray(vocab)) {
    const scores: number[] = [];
    const entries = vocab.map((entry, id): [string, number] => {
      const [text, score] = Array.isArray(entry) ? entry : [];
      if (typeof text !== "string" || typeof score !== "number") {
        throw wrong(model, `model.vocab[${id}] is not [text, score]`);
      }
      scores.push(score);
      return [text, id];
    });
    return { entries, scores };
  }
  if (!isFields(vocab)) throw model.invalid("vocab", "an object or an array");
  const entries = Object.entries(vocab).map(([text, id]): [string, number] => {
    if (typeof id !== "number") throw wrong(model, `model.vocab: the id of '${text}' is no number`);
    return [text, id];
  });
  return { entries, scores: undefined };
}

function readAdded(json: JsonObject): AddedToken[] {
  return (json.list("added_tokens") ?? []).map((entry, index) => {
    if (!isFields(entry)) throw wrong(json, `added_tokens[${index}] is not an object`);
    const token = new JsonObject(json.path, entry, `added_tokens[${index}].`);
    const text = token.text("content");
    if (text === undefined) throw token.invalid("content", "a text");
    if (token.flag("single_word")) throw token.invalid("single_word", "false: it is not supported");
    return {
      id: token.requiredCount("id"),
      text,
      isSpecial: token.flag("special") ?? false,
      stripsLeft: token.flag("lstrip") ?? false,
      stripsRight: token.flag("rstrip") ?? false,
    };
  });
}
