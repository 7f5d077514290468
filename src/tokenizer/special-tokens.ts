// Which tokens have a role: the ids that the metadata gives, and the tokens that every model uses
// under well-known texts although the metadata does not say so. The texts and their consequences
// are those of llama.cpp, so that both stop at the same token.
import { getNumber, getNumbers, type Metadata } from "../weights/metadata.ts";
import type { SpecialTokens } from "./tokenizer.ts";
import { TokenFlag, type Vocabulary } from "./vocabulary.ts";

/** Ids that hold when the metadata gives none; each kind has its own. */
export type RoleDefaults = Partial<Record<keyof typeof ROLE_KEYS, number>>;

const ROLE_KEYS = {
  bosId: ["bos_token_id"],
  eosId: ["eos_token_id"],
  eotId: ["eot_token_id"],
  endOfMessageId: ["eom_token_id"],
  unknownId: ["unknown_token_id"],
  // The first spelling is the one that converters write.
  separatorId: ["seperator_token_id", "separator_token_id"],
  paddingId: ["padding_token_id"],
  maskId: ["mask_token_id"],
  fillPrefixId: ["fim_pre_token_id", "prefix_token_id"],
  fillSuffixId: ["fim_suf_token_id", "suffix_token_id"],
  fillMiddleId: ["fim_mid_token_id", "middle_token_id"],
  fillPaddingId: ["fim_pad_token_id"],
  fillRepositoryId: ["fim_rep_token_id"],
  fillSeparatorId: ["fim_sep_token_id"],
} as const;

type Role = keyof typeof ROLE_KEYS;

/** Texts by which a role is found when the metadata does not name it; the first that exists. */
const ROLE_TEXTS: readonly (readonly [Role, readonly string[]])[] = [
  [
    "eotId",
    [
      "<|eot_id|>",
      "<|im_end|>",
      "<|end|>",
      "<end_of_turn>",
      "<|endoftext|>",
      "<|end_of_text|>",
      "<EOT>",
      "_<EOT>",
      "[EOT]",
      "<｜end▁of▁sentence｜>",
      "<end_of_utterance>",
    ],
  ],
  ["endOfMessageId", ["<|eom_id|>"]],
  [
    "fillPrefixId",
    [
      "<|fim_prefix|>",
      "<fim-prefix>",
      "<fim_prefix>",
      "<｜fim▁begin｜>",
      "<PRE>",
      "▁<PRE>",
      "<|code_prefix|>",
      "<|prefix|>",
    ],
  ],
  [
    "fillSuffixId",
    [
      "<|fim_suffix|>",
      "<fim-suffix>",
      "<fim_suffix>",
      "<｜fim▁hole｜>",
      "<SUF>",
      "▁<SUF>",
      "<|code_suffix|>",
      "<|suffix|>",
    ],
  ],
  [
    "fillMiddleId",
    [
      "<|fim_middle|>",
      "<fim-middle>",
      "<fim_middle>",
      "<｜fim▁end｜>",
      "<MID>",
      "▁<MID>",
      "<|code_middle|>",
      "<|middle|>",
    ],
  ],
  ["fillPaddingId", ["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]],
  ["fillRepositoryId", ["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]],
  ["fillSeparatorId", ["<|file_sep|>"]],
];

const END_OF_GENERATION_TEXTS = [
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<|flush|>",
  "<|calls|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "</s>",
  "<|eom_id|>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
  "<|end_of_text|>",
  "<end_of_utterance>",
  "<eos>",
  "<turn|>",
  "<|tool_response>",
  "<｜end▁of▁sentence｜>",
  "[e~[",
];

/** Parts of an answer in the format of gpt-oss: shown, although the file calls them control. */
const ALWAYS_SHOWN_TEXTS = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/** Finds all roles; marks tokens of `vocabulary` whose text says that they are control tokens. */
export function resolveSpecialTokens(
  metadata: Metadata,
  vocabulary: Vocabulary,
  defaults: RoleDefaults,
): SpecialTokens {
  const ids = new Map<Role, number>();
  for (const role of Object.keys(ROLE_KEYS) as Role[]) {
    const id = idFromMetadata(metadata, vocabulary.size, role) ?? defaults[role];
    if (id !== undefined && id < vocabulary.size) ids.set(role, id);
  }
  for (const [role, texts] of ROLE_TEXTS) {
    if (ids.has(role)) continue;
    const id = texts.map((text) => vocabulary.find(text)).find((found) => found !== undefined);
    if (id === undefined) continue;
    ids.set(role, id);
    vocabulary.flags[id]! |= TokenFlag.control;
  }
  const endOfGenerationIds = findEndOfGeneration(vocabulary, ids);
  markStripping(metadata, vocabulary);
  return {
    ...pick(ids, "bosId"),
    ...pick(ids, "eosId"),
    ...pick(ids, "eotId"),
    ...pick(ids, "unknownId"),
    ...pick(ids, "separatorId"),
    ...pick(ids, "paddingId"),
    ...pick(ids, "maskId"),
    endOfGenerationIds,
  };
}

function pick(ids: ReadonlyMap<Role, number>, role: Role): Partial<Record<Role, number>> {
  const id = ids.get(role);
  return id === undefined ? {} : { [role]: id };
}

/** Some files write ids outside the vocabulary (2^32 - 1) where they mean none. */
function idFromMetadata(metadata: Metadata, size: number, role: Role): number | undefined {
  for (const key of ROLE_KEYS[role]) {
    const id = getNumber(metadata, `tokenizer.ggml.${key}`);
    if (id !== undefined && Number.isInteger(id) && id >= 0 && id < size) return id;
  }
  return undefined;
}

function findEndOfGeneration(vocabulary: Vocabulary, ids: ReadonlyMap<Role, number>): Set<number> {
  const ends = new Set<number>();
  const endRoles = ["fillPaddingId", "fillRepositoryId", "fillSeparatorId"] as const;
  for (const role of [...endRoles, "eosId", "eotId", "endOfMessageId"] as const) {
    const id = ids.get(role);
    if (id !== undefined) ends.add(id);
  }
  for (const text of END_OF_GENERATION_TEXTS) {
    const id = vocabulary.find(text);
    if (id === undefined || isStrikethroughTag(vocabulary, id, text)) continue;
    ends.add(id);
    vocabulary.flags[id]! |= TokenFlag.control;
  }
  for (const text of ALWAYS_SHOWN_TEXTS) {
    const id = vocabulary.find(text);
    if (id !== undefined) vocabulary.flags[id] = TokenFlag.userDefined;
  }
  removeFalseEnds(vocabulary, ends);
  return ends;
}

/** In vocabularies learnt from web pages (Qwen 2) </s> is an ordinary token, a tag of HTML. */
function isStrikethroughTag(vocabulary: Vocabulary, id: number, text: string): boolean {
  return text === "</s>" && vocabulary.has(id, TokenFlag.normal);
}

/** Texts that end generation in most models but are ordinary parts of an answer in a few. */
function removeFalseEnds(vocabulary: Vocabulary, ends: Set<number>): void {
  const endId = (text: string) => {
    const id = vocabulary.find(text);
    return id !== undefined && ends.has(id) ? id : undefined;
  };
  const has = (text: string) => endId(text) !== undefined;
  // gpt-oss ends with <|return|> or <|call|>, Solar Open with <|flush|> or <|calls|>; there
  // <|end|> only closes one message of several.
  const closed = endId("<|end|>");
  const calls = has("<|call|>") || has("<|calls|>");
  if (closed !== undefined && calls && (has("<|return|>") || has("<|flush|>"))) {
    ends.delete(closed);
    vocabulary.flags[closed] = TokenFlag.userDefined;
  }
  // In Gemma 4 </s> is a tag of HTML.
  const tag = endId("</s>");
  if (tag !== undefined && has("<|tool_response>")) {
    ends.delete(tag);
    vocabulary.flags[tag] = TokenFlag.normal;
  }
}

/** Model folders say which tokens swallow the white space beside them. */
function markListed(metadata: Metadata, key: string, { flags, size }: Vocabulary, flag: number) {
  for (const id of getNumbers(metadata, key) ?? []) if (id < size) flags[Number(id)]! |= flag;
}

/** GGUF has no field for stripping; the models that need it are known by name. */
function markStripping(metadata: Metadata, vocabulary: Vocabulary): void {
  markListed(metadata, "tokenizer.ggml.strip_left_token_ids", vocabulary, TokenFlag.stripsLeft);
  markListed(metadata, "tokenizer.ggml.strip_right_token_ids", vocabulary, TokenFlag.stripsRight);
  const text = (key: string) => {
    const value = metadata.get(key);
    return typeof value === "string" ? value.toLowerCase() : "";
  };
  const { flags } = vocabulary;
  const mark = (token: string, flag: number) => {
    const id = vocabulary.find(token);
    if (id !== undefined) flags[id]! |= flag;
  };
  const pre = text("tokenizer.ggml.pre");
  const architecture = text("general.architecture");
  const name = text("general.name");
  if (/jina-v2-(de|es|code)/.test(pre) || /nomic-bert-moe|jina-bert-v3/.test(architecture)) {
    mark("<mask>", TokenFlag.stripsLeft);
  } else if (/phi-?3/.test(name)) {
    const special = TokenFlag.control | TokenFlag.userDefined | TokenFlag.unknown;
    for (let id = 0; id < flags.length; id++) {
      if (vocabulary.has(id, special)) flags[id]! |= TokenFlag.stripsRight;
    }
    mark("</s>", TokenFlag.stripsRight);
    for (const token of ["<unk>", "<s>", "<|endoftext|>"]) {
      const id = vocabulary.find(token);
      if (id !== undefined) flags[id]! &= ~TokenFlag.stripsRight;
    }
  } else if (name.includes("modern-bert")) {
    mark("[MASK]", TokenFlag.stripsLeft);
  }
}
