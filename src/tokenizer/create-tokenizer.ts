// Builds the tokenizer that a model's metadata describes: the kinds, their defaults, and what is
// added around a text.
import { nearestMatch, TinferError } from "../core/errors.ts";
import {
  getBoolean,
  getNumber,
  getString,
  getStrings,
  type Metadata,
} from "../weights/metadata.ts";
import { BytePairEncoding, rankRule } from "./byte-pair-encoding.ts";
import { type Frame, ModelTokenizer, type PairFrame } from "./model-tokenizer.ts";
import { findPretokenizer, type Pretokenizer, pretokenizerNames } from "./pretokenizer-table.ts";
import { SentencePiece } from "./sentencepiece.ts";
import { type RoleDefaults, resolveSpecialTokens } from "./special-tokens.ts";
import type { TextAlgorithm } from "./text-algorithm.ts";
import type { SpecialTokens, Tokenizer } from "./tokenizer.ts";
import { Unigram } from "./unigram.ts";
import { Vocabulary } from "./vocabulary.ts";
import { WordPiece } from "./word-piece.ts";

interface Kind {
  /** What holds unless the metadata says otherwise. */
  roles: RoleDefaults;
  addsBos: boolean;
  addsEos: boolean;
  /** The pretokenizer that goes without saying. */
  pretokenizer?: string;
  createAlgorithm(source: AlgorithmSource): TextAlgorithm;
}

interface AlgorithmSource {
  metadata: Metadata;
  vocabulary: Vocabulary;
  specialTokens: SpecialTokens;
  pretokenizer: Pretokenizer;
}

const KINDS: Readonly<Record<string, Kind>> = {
  llama: {
    roles: { bosId: 1, eosId: 2, unknownId: 0 },
    addsBos: true,
    addsEos: false,
    createAlgorithm: ({ metadata, vocabulary, specialTokens }) => {
      const addsSpacePrefix = getBoolean(metadata, "tokenizer.ggml.add_space_prefix") ?? true;
      const merges = getStrings(metadata, "tokenizer.ggml.merges");
      const { unknownId } = specialTokens;
      return new SentencePiece(vocabulary, {
        addsSpacePrefix,
        doublesSpacePrefix: spacePrefix(metadata) === undefined,
        unknownId,
        // Model folders tell the order of merges, GGUF files scores.
        rule: merges && rankRule(merges),
      });
    },
  },
  gpt2: {
    roles: {},
    addsBos: false,
    addsEos: false,
    createAlgorithm: ({ metadata, vocabulary, pretokenizer }) =>
      new BytePairEncoding(vocabulary, metadata, pretokenizer),
  },
  gemma4: {
    roles: {},
    addsBos: true,
    addsEos: false,
    pretokenizer: "gemma4",
    createAlgorithm: ({ metadata, vocabulary, pretokenizer }) =>
      new BytePairEncoding(vocabulary, metadata, pretokenizer),
  },
  bert: {
    roles: { bosId: 101, unknownId: 100, separatorId: 102, paddingId: 0, maskId: 103 },
    addsBos: true,
    addsEos: false,
    createAlgorithm: ({ metadata, vocabulary, specialTokens }) =>
      new WordPiece(vocabulary, metadata, specialTokens.unknownId),
  },
  t5: {
    roles: { eosId: 1, unknownId: 2, paddingId: 0 },
    addsBos: false,
    addsEos: true,
    createAlgorithm: ({ metadata, vocabulary, specialTokens }) =>
      new Unigram(vocabulary, metadata, specialTokens.unknownId ?? 0),
  },
};

export function createTokenizer(metadata: Metadata): Tokenizer {
  const model = getString(metadata, "tokenizer.ggml.model");
  const kind = model === undefined ? undefined : KINDS[model];
  if (model === undefined || kind === undefined) throw unknownKind(model);
  const usesPretokenizer = model === "gpt2" || kind.pretokenizer !== undefined;
  // Files from before 2024 do not name a pretokenizer; "default" is what they were made with.
  const named = getString(metadata, "tokenizer.ggml.pre") ?? "default";
  const own = ownPretokenizer(metadata);
  const pretokenizerName = usesPretokenizer ? (kind.pretokenizer ?? named) : "default";
  const pretokenizer = own ?? findPretokenizer(pretokenizerName);
  if (pretokenizer === undefined) throw unknownPretokenizer(pretokenizerName);

  const vocabulary = new Vocabulary(metadata);
  const specialTokens = resolveSpecialTokens(metadata, vocabulary, roleDefaults(metadata, kind));
  const flag = (name: string) => getBoolean(metadata, `tokenizer.ggml.${name}`);
  const bosByDefault = kind.addsBos || (usesPretokenizer && pretokenizer.addsBos === true);
  // Gemma 4 files were published with a wrong "false" here; the model needs its BOS.
  const asksForBos = pretokenizer.wholeNewlines === true || (flag("add_bos_token") ?? bosByDefault);
  const asksForEos = flag("add_eos_token") ?? kind.addsEos;
  const addsBos = asksForBos && specialTokens.bosId !== undefined;
  const addsEos = asksForEos && specialTokens.eosId !== undefined;
  const frame =
    model === "bert"
      ? bertFrame(specialTokens)
      : {
          ...(addsBos && specialTokens.bosId !== undefined ? { first: specialTokens.bosId } : {}),
          ...(addsEos && specialTokens.eosId !== undefined ? { last: specialTokens.eosId } : {}),
        };
  return new ModelTokenizer({
    kind: kindName(model, usesPretokenizer, own === undefined ? pretokenizerName : "own"),
    vocabulary,
    specialTokens,
    frame,
    pairFrame: pairFrame(specialTokens, {
      bos: asksForBos,
      eos: asksForEos,
      separator: flag("add_sep_token") ?? (model === "bert" || pretokenizer.addsSeparator === true),
    }),
    addsBos: model === "bert" ? frame.first !== undefined : addsBos,
    addsEos: model === "bert" ? frame.last !== undefined : addsEos,
    algorithm: kind.createAlgorithm({ metadata, vocabulary, specialTokens, pretokenizer }),
    prefixesFirstTextOnly: spacePrefix(metadata) === "first",
    form: normalizationForm(metadata),
  });
}

/** Model folders whose pretokenizer has no name bring it as regular expressions. */
function ownPretokenizer(metadata: Metadata): Pretokenizer | undefined {
  const patterns = getStrings(metadata, "tokenizer.ggml.pre_patterns");
  if (patterns === undefined || patterns.length === 0) return undefined;
  const ignoreMerges = getBoolean(metadata, "tokenizer.ggml.ignore_merges") ?? false;
  return { stages: patterns.toArray(), ignoreMerges };
}

/** How model folders put spaces in front; undefined: in front of every text, as GGUF has it. */
const spacePrefix = (metadata: Metadata) => getString(metadata, "tokenizer.ggml.space_prefix");

function normalizationForm(metadata: Metadata): string | undefined {
  const key = "tokenizer.ggml.normalizer.form";
  const form = getString(metadata, key);
  if (form === undefined || ["NFC", "NFD", "NFKC", "NFKD"].includes(form)) return form;
  throw new TinferError("unsupported", `metadata key '${key}' is '${form}'`, {
    hint: "known are NFC, NFD, NFKC and NFKD",
  });
}

function kindName(model: string, usesPretokenizer: boolean, pretokenizer: string): string {
  return usesPretokenizer && model !== pretokenizer ? `${model}/${pretokenizer}` : model;
}

/** Older BERT files name [CLS] instead of BOS. */
function roleDefaults(metadata: Metadata, kind: Kind): RoleDefaults {
  const clsId = getNumber(metadata, "tokenizer.ggml.cls_token_id");
  if (kind.roles.separatorId === undefined || clsId === undefined) return kind.roles;
  return { ...kind.roles, bosId: clsId };
}

/** BERT models always see [CLS] text [SEP], whatever the flags say. */
function bertFrame({ bosId, separatorId }: SpecialTokens): Frame {
  return {
    ...(bosId === undefined ? {} : { first: bosId }),
    ...(separatorId === undefined ? {} : { last: separatorId }),
  };
}

/** Around two texts, as the flags have it; a separator stands in for an end that there is not. */
function pairFrame(
  { bosId, eosId, separatorId }: SpecialTokens,
  asks: { bos: boolean; eos: boolean; separator: boolean },
): PairFrame {
  const some = (isAsked: boolean, id: number | undefined) => {
    return isAsked && id !== undefined ? [id] : [];
  };
  const end = some(asks.eos, eosId ?? separatorId);
  const middle = [...end, ...some(asks.separator, separatorId)];
  return { first: some(asks.bos, bosId), middle, last: end };
}

function unknownKind(model: string | undefined): TinferError {
  const known = Object.keys(KINDS).join(", ");
  if (model === undefined || model === "none" || model === "no_vocab") {
    return new TinferError("unsupported", "the model has no tokenizer (tokenizer.ggml.model)", {
      hint: `known kinds are ${known}; logits --token-ids and bench work without a tokenizer`,
    });
  }
  return new TinferError("unsupported", `tokenizer kind '${model}' is not known`, {
    hint: `known kinds: ${known}`,
  });
}

function unknownPretokenizer(name: string): TinferError {
  const names = pretokenizerNames();
  const near = nearestMatch(name, names);
  const guess = near === undefined ? "" : `did you mean '${near}'? `;
  return new TinferError("unsupported", `pretokenizer '${name}' is not known`, {
    hint: `${guess}known pretokenizers: ${names.join(", ")}`,
  });
}
