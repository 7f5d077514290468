// Which tokens have a role, and which go around a text: from the post-processor of tokenizer.json,
// tokenizer_config.json, special_tokens_map.json and the ids of (generation_)config.json.
import { componentsOf, unknownComponent } from "./components.ts";
import { isFields, type JsonObject, readFolderJson } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";
import type { FolderVocabulary } from "./vocabulary.ts";

export interface TokenizerFiles {
  readonly folder: string;
  readonly config: JsonObject;
  /** tokenizer.json. */
  readonly json: JsonObject;
  readonly vocabulary: FolderVocabulary;
}

/** Role → GGUF's key; "seperator" is how GGUF spells it. */
const roles = {
  bos: "bos_token_id",
  eos: "eos_token_id",
  unk: "unknown_token_id",
  sep: "seperator_token_id",
  pad: "padding_token_id",
  cls: "cls_token_id",
  mask: "mask_token_id",
} as const;

export function specialTokenMetadata(files: TokenizerFiles, values: MetadataValues): void {
  const { folder, config, json, vocabulary } = files;
  const key = (name: string) => `tokenizer.ggml.${name}`;
  const tokenizerConfig = readFolderJson(folder, "tokenizer_config.json");
  const map = readFolderJson(folder, "special_tokens_map.json");
  const generation = readFolderJson(folder, "generation_config.json");
  const named = (role: string) => {
    const text = tokenText(tokenizerConfig, role) ?? tokenText(map, role);
    return text === undefined ? undefined : vocabulary.ids.get(text);
  };
  const stated = (role: "bos" | "eos") => [
    ...idsOf(generation, `${role}_token_id`),
    ...idsOf(config, `${role}_token_id`),
  ];
  const frame = readFrame(json, vocabulary);
  const bosId = frame?.first ?? named("bos") ?? stated("bos")[0];
  const isWordPiece = values.values.get(key("model"))?.value === "bert";
  const lastId = isWordPiece ? undefined : frame?.last;
  const eosIds = [named("eos"), ...stated("eos"), lastId].filter((id) => id !== undefined);
  const [eosId, eotId, eomId] = [...new Set(eosIds)];
  const sepId = isWordPiece ? (frame?.last ?? named("sep")) : named("sep");
  const ids = { bos: bosId, eos: eosId, unk: unknownId(vocabulary) ?? named("unk"), sep: sepId };
  for (const [role, name] of Object.entries(roles)) {
    values.u32(key(name), role in ids ? ids[role as keyof typeof ids] : named(role));
  }
  // Further tokens that end generation have no name of their own in GGUF.
  values.u32(key("eot_token_id"), eotId);
  values.u32(key("eom_token_id"), eomId);
  const adds = addsAround(tokenizerConfig, frame);
  values.bool(key("add_bos_token"), adds.bos);
  values.bool(key("add_eos_token"), adds.eos);
  if (lastId !== undefined && lastId !== eosId) {
    throw unknownComponent(json, "post_processor", `token ${lastId} after the text`);
  }
  const strips = (side: "stripsLeft" | "stripsRight", name: string) => {
    const found = vocabulary.added.filter((token) => token[side]).map(({ id }) => id);
    if (found.length > 0) values.numbers(key(name), "u32", found);
  };
  strips("stripsLeft", "strip_left_token_ids");
  strips("stripsRight", "strip_right_token_ids");
}

function unknownId({ types }: FolderVocabulary): number | undefined {
  const id = types.indexOf(2);
  return id < 0 ? undefined : id;
}

/** `"bos_token": "<s>"` or `{"content": "<s>", …}`. */
function tokenText(file: JsonObject | undefined, role: string): string | undefined {
  const value = file?.get(`${role}_token`);
  if (value === undefined || typeof value === "string") return value;
  if (isFields(value) && typeof value["content"] === "string") return value["content"];
  throw file!.invalid(`${role}_token`, "a text or an object with its content");
}

/** One id or several. */
function idsOf(file: JsonObject | undefined, key: string): number[] {
  const value = file?.get(key);
  if (value === undefined) return [];
  const ids = Array.isArray(value) ? value : [value];
  if (ids.every((id): id is number => Number.isInteger(id))) return ids.filter((id) => id >= 0);
  throw file!.invalid(key, "token ids");
}

/** What the post-processor puts around a text; undefined where it puts nothing anywhere. */
interface Frame {
  readonly first: number | undefined;
  readonly last: number | undefined;
}

function readFrame(json: JsonObject, vocabulary: FolderVocabulary): Frame | undefined {
  let frame: Frame | undefined;
  for (const step of componentsOf(json, "post_processor")) {
    const type = step.text("type");
    if (type === "TemplateProcessing") frame = templateFrame(step, vocabulary);
    else if (type === "BertProcessing" || type === "RobertaProcessing") frame = pairFrame(step);
    else if (type !== "ByteLevel") throw unknownComponent(step, "post_processor");
  }
  return frame;
}

/** `"single": [{SpecialToken}, {Sequence}, {SpecialToken}]`. */
function templateFrame(step: JsonObject, vocabulary: FolderVocabulary): Frame {
  const before: string[] = [];
  const after: string[] = [];
  let list = before;
  for (const piece of step.list("single") ?? []) {
    const special = isFields(piece) ? piece["SpecialToken"] : undefined;
    if (special === undefined) list = after;
    else if (isFields(special) && typeof special["id"] === "string") list.push(special["id"]);
    else throw unknownComponent(step, "post_processor", JSON.stringify(piece));
  }
  const single = (texts: readonly string[]) => {
    const [text, more] = texts;
    if (text === undefined) return undefined;
    const id = vocabulary.ids.get(text);
    if (id !== undefined && more === undefined) return id;
    throw unknownComponent(step, "post_processor", `${texts.join("")} around the text`);
  };
  return { first: single(before), last: single(after) };
}

/** `"cls": ["<s>", 0], "sep": ["</s>", 2]`. */
function pairFrame(step: JsonObject): Frame {
  const id = (key: string) => {
    const value = step.list(key)?.[1];
    if (typeof value === "number") return value;
    throw step.invalid(key, "a text and its id");
  };
  return { first: id("cls"), last: id("sep") };
}

/** Tokenizers of these classes follow their flags, whatever their post-processor was. */
const flagClasses = /^(Code)?Llama|^Gemma|^Cohere/;

function addsAround(config: JsonObject | undefined, frame: Frame | undefined) {
  const followsFlags = flagClasses.test(config?.text("tokenizer_class") ?? "");
  const adds = (flag: string, id: number | undefined) => {
    const stated = config?.flag(flag);
    if (frame !== undefined && !(followsFlags && stated !== undefined)) return id !== undefined;
    return stated ?? false;
  };
  return { bos: adds("add_bos_token", frame?.first), eos: adds("add_eos_token", frame?.last) };
}
