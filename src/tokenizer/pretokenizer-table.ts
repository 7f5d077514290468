// Every pretokenizer that `tokenizer.ggml.pre` may name: how it cuts a text into the words within
// which byte-level BPE merges. Token ids must equal those of llama.cpp, the reference for GGUF
// vocabularies. Where its regular expressions differ from those of a model's tokenizer.json
// (it has no case properties beyond ASCII, for instance), llama.cpp's cut is the one here.

/** Cuts runs of digits into groups of three, counted from their right end. */
export interface DigitGroups {
  /** The runs that are grouped. */
  runs: string;
  /** Is there a cut where a run starts? "whole": only if its length is a multiple of three. */
  cutAtStart: "always" | "never" | "whole";
  cutAtEnd: boolean;
}

/** One pass over the pieces of the pass before: each match and each gap becomes a piece. */
export type Stage = string | DigitGroups;

export interface Pretokenizer {
  stages: readonly Stage[];
  /** A word that is a token as a whole is not merged from its parts. */
  ignoreMerges?: boolean;
  /** BOS is added unless the metadata says otherwise. */
  addsBos?: boolean;
  /** A separator is put between two texts unless the metadata says otherwise. */
  addsSeparator?: boolean;
  /** Spaces are written as U+2581 and bytes are not remapped, as SentencePiece does. */
  escapesSpaces?: boolean;
  /** A run of newlines that is a token as a whole is not merged from its parts. */
  wholeNewlines?: boolean;
}

const WS = String.raw`\p{White_Space}`;
/** Not followed by a character that is no white space. */
const BEFORE_SPACE = String.raw`(?!\P{White_Space})`;
const NEWLINES = String.raw`${WS}*[\r\n]+`;
const SPACES = `${WS}+${BEFORE_SPACE}|${WS}+`;
const CONTRACTION = `'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])`;
const MARKS = String.raw`[^${WS}\p{L}\p{N}]+`;
const WORD = String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`;

const GPT2 = String.raw`'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?${MARKS}|${SPACES}`;

/** The pattern of GPT-4 and Llama 3 with the given digits and tail. */
function gpt4(digits: string, tail = `${NEWLINES}|${SPACES}`): string {
  return String.raw`${CONTRACTION}|${WORD}|${digits}| ?${MARKS}[\r\n]*|${tail}`;
}
const LLAMA3 = gpt4(String.raw`\p{N}{1,3}`);
const QWEN2 = gpt4(String.raw`\p{N}`);

/** The pattern of GPT-4o: words are cut where lower case ends. `letter` is a class without []. */
function gpt4o(letter: string, suffix: string, digits: string): string {
  const head = String.raw`[^\r\n\p{L}\p{N}]?`;
  const upper = `[[${letter}]--[a-z]]`;
  const lower = `[[${letter}]--[A-Z]]`;
  const words = `${head}${upper}*${lower}+${suffix}|${head}${upper}+${lower}*${suffix}`;
  return String.raw`${words}|${digits}| ?${MARKS}[\r\n\/]*|${NEWLINES}|${SPACES}`;
}
/** As GPT-4o, but without the cut at case. */
function caselessWords(digits: string): string {
  const words = String.raw`[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:${CONTRACTION})?`;
  return String.raw`${words}|${digits}| ?${MARKS}[\r\n\/]*|${NEWLINES}|${SPACES}`;
}

const ASCII_MARK = String.raw`[!-\/:-@\[-\x60\{-~]`;
function deepseek3(tail: string): string {
  const words = String.raw`${ASCII_MARK}[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+`;
  return String.raw`${words}| ?[\p{P}\p{S}]+${tail}|${SPACES}`;
}
const DEEPSEEK3_TAIL = String.raw`[\r\n]*|${NEWLINES}`;
const CJK_KANA = String.raw`[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+`;
/** Nearly all scripts from Samaritan to Hangul, but not the white space between them. */
const DEEPSEEK_CJK = String.raw`[[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]--${WS}]+`;

/** The letters of scripts with case, as the tokenizer.json of DeepSeek LLM lists them. */
const CASED_LETTERS =
  String.raw`A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293` +
  String.raw`\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C` +
  String.raw`\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5` +
  String.raw`\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77` +
  String.raw`\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59` +
  String.raw`\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC` +
  String.raw`\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107` +
  String.raw`\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139` +
  String.raw`\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE` +
  String.raw`\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E` +
  String.raw`\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A` +
  String.raw`\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}` +
  String.raw`\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}`;
const DEEPSEEK_MARKS = String.raw`!-\/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3001\u3002`;

const HAN =
  String.raw`\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}` +
  String.raw`\u{2B740}-\u{2B81F}\u{2B820}-\u{2CEAF}\u{2CEB0}-\u{2EBEF}\uF900-\uFAFF` +
  String.raw`\u{2F800}-\u{2FA1F}`;
/** AFMoE's tokenizer.json has U+F900 to U+FAFF, the llama.cpp of it begins at U+8C48. */
const ASIAN_SCRIPTS =
  String.raw`[\u4E00-\u9FFF\u3400-\u4DBF\u8C48-\uFAFF\u3040-\u309F\u30A0-\u30FF\uFF65-\uFF9F` +
  String.raw`\u2F00-\u2FDF\u0E40-\u0E7F\u0E80-\u0EFF\u1780-\u17FF\u1000-\u109F\uAA60-\uAA7F` +
  String.raw`\uA9E0-\uA9FF\uAC00-\uD7AF\u1100-\u11FF]+`;
/** Runs up to the next space or punctuation of the usual scripts, as BLOOM has it. */
const BLOOM = String.raw` ?[^\(${WS}\|.,!?…。，、।۔،\)]+`;
const LINES = String.raw`[^\n]+|\n+`;

const NUMBERS_BY_THREE = {
  ...{ runs: String.raw`\p{N}+`, cutAtStart: "never", cutAtEnd: true },
} as const satisfies DigitGroups;

const FAMILIES = {
  default: {
    stages: [String.raw`[\p{P}$+<=>^~\|]+`, GPT2, String.raw`\p{N}+`, "[0-9][0-9][0-9]"],
  },
  gpt2: { stages: [GPT2] },
  gpt2Pairs: { stages: [GPT2], addsSeparator: true },
  digitsThenGpt2: { stages: [String.raw`\p{N}`, GPT2] },
  llama3: { stages: [LLAMA3], ignoreMerges: true, addsBos: true },
  llama3Plain: { stages: [LLAMA3] },
  qwen2: { stages: [QWEN2] },
  qwen35: {
    stages: [
      String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}` +
        String.raw`| ?[^${WS}\p{L}\p{M}\p{N}]+[\r\n]*|${NEWLINES}|${SPACES}`,
    ],
  },
  deepseekLlm: {
    stages: [
      String.raw`[\r\n]`,
      `${WS}?[${CASED_LETTERS}]+`,
      `${WS}?[${DEEPSEEK_MARKS}]+`,
      // Tried only where a run of white space begins, or long runs would take quadratic time.
      `(?<!${WS})${WS}+$`,
      DEEPSEEK_CJK,
      String.raw`\p{N}+`,
    ],
  },
  deepseekCoder: {
    stages: [
      String.raw`[\r\n]`,
      String.raw`${WS}?\p{L}+`,
      String.raw`${WS}?\p{P}+`,
      DEEPSEEK_CJK,
      String.raw`\p{N}`,
    ],
  },
  deepseek3: { stages: [String.raw`\p{N}{1,3}`, CJK_KANA, deepseek3(DEEPSEEK3_TAIL)] },
  spark: {
    stages: [String.raw`\p{N}{1,3}`, CJK_KANA, deepseek3(String.raw`|[\r\n]`), String.raw`\p{N}`],
  },
  youtu: {
    stages: [
      String.raw`[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，\u3001-\u303F\uFE30-\uFE4F]+|[ㄅ-ㄯ]+|` + CJK_KANA,
      caselessWords(String.raw`\p{N}`),
    ],
    ignoreMerges: true,
  },
  falcon: { stages: [String.raw`[\p{P}$+<=>^~\|\x60]+`, GPT2, "[0-9][0-9][0-9]"] },
  bloom: { stages: [BLOOM] },
  viking: { stages: [BLOOM, String.raw`\p{N}`] },
  tekken: {
    stages: [gpt4o(String.raw`\p{L}`, "", String.raw`\p{N}`)],
    ignoreMerges: true,
    addsBos: true,
  },
  gpt4o: {
    stages: [gpt4o(String.raw`\p{L}`, `(?:${CONTRACTION})?`, String.raw`\p{N}{1,3}`)],
  },
  graniteEmbedding: {
    stages: [gpt4o(String.raw`\p{L}\p{M}`, `(?:${CONTRACTION})?`, String.raw`\p{N}{1,3}`)],
    ignoreMerges: true,
  },
  tinyAya: {
    stages: [NUMBERS_BY_THREE, caselessWords(String.raw`\p{N}{1,3}`)],
  },
  chameleon: {
    stages: [
      "<sentinel:[0-9]+>",
      "IMGIMG[A-I]{1,4}Z",
      String.raw`[\t\n]|    |  `,
      String.raw`\p{N}`,
      String.raw`[\p{P}!-\/:-@\[-\x60\{-~]`,
      GPT2,
    ],
    addsBos: true,
  },
  kimiK2: {
    stages: [
      String.raw`[${HAN}]+|[^\r\n\p{L}\p{N}]?[\p{L}--[${HAN}]]+(?:${CONTRACTION})?` +
        String.raw`|\p{N}{1,3}| ?${MARKS}[\r\n]*|${NEWLINES}|${SPACES}`,
    ],
  },
  superbpe: {
    stages: [String.raw`\p{N}+`, { runs: "[0-9]+", cutAtStart: "whole", cutAtEnd: false }],
  },
  bailing: {
    stages: [
      String.raw`'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|${WORD}|\p{N}` +
        String.raw`| ?${MARKS}[\r\n]*|${WS}*[\r\n]|${SPACES}`,
    ],
  },
  seedCoder: {
    stages: [
      String.raw`${CONTRACTION}|${WORD}|\p{N}| ?[^${WS}\p{L}\p{N}\r\n]+|${NEWLINES}|${SPACES}`,
    ],
  },
  ufakzeka: {
    stages: [String.raw`${WORD}|\p{N}| ?${MARKS}[\r\n]*|${NEWLINES}|${SPACES}`],
  },
  afmoe: {
    stages: [NUMBERS_BY_THREE, ASIAN_SCRIPTS, deepseek3(DEEPSEEK3_TAIL)],
  },
  laguna: { stages: [LINES, QWEN2] },
  exaoneMoe: {
    stages: [
      String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*(?: \p{L}[\p{L}\p{M}]*)*` +
        String.raw`|\p{N}| ?${MARKS}[\r\n\/]?|${WS}*[\r\n]|${SPACES}`,
    ],
  },
  jais2: {
    stages: [
      gpt4(
        String.raw`\p{N}{1,3}`,
        `${NEWLINES}|${[512, 256, 128, 64, 32, 16, 8, 4, "1,2"]
          .map((length) => `${WS}{${length}}${BEFORE_SPACE}`)
          .join("|")}|${WS}`,
      ),
    ],
  },
  minicpm5: {
    stages: [String.raw`\p{N}{1,3}`, gpt4(String.raw`\p{N}+`)],
    ignoreMerges: true,
  },
  gemma4: { stages: [LINES], escapesSpaces: true, wholeNewlines: true, addsBos: true },
  sarvam: { stages: [LINES], escapesSpaces: true },
} satisfies Record<string, Pretokenizer>;

const NAMES: Record<keyof typeof FAMILIES, string> = {
  default: "default",
  gpt2:
    "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de mpt " +
    "olmo jais trillion granite-docling gigachat a.x-4.0 mellum modern-bert exaone4",
  gpt2Pairs: "jina-v1-en jina-v2-code roberta-bpe",
  digitsThenGpt2: "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
  llama3: "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
  llama3Plain: "dbrx smaug-bpe chatglm-bpe glm4",
  qwen2: "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan grok-2 solar-open",
  qwen35: "qwen35",
  deepseekLlm: "deepseek-llm",
  deepseekCoder: "deepseek-coder",
  deepseek3: "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
  spark: "spark2_5",
  youtu: "youtu",
  falcon: "falcon",
  bloom: "bloom poro-chat gpt3-finnish",
  viking: "viking",
  tekken: "tekken",
  gpt4o: "gpt-4o llama4 kanana2 talkie minimax-m2",
  graniteEmbedding: "granite-embed-multi-97m",
  tinyAya: "tiny_aya cohere2moe",
  chameleon: "chameleon",
  kimiK2: "kimi-k2",
  superbpe: "superbpe",
  bailing: "bailingmoe bailingmoe2 llada-moe",
  seedCoder: "seed-coder",
  ufakzeka: "ufakzeka",
  afmoe: "afmoe",
  laguna: "laguna",
  exaoneMoe: "exaone-moe",
  jais2: "jais-2",
  minicpm5: "minicpm5",
  gemma4: "gemma4 granite-embed-multi-311m",
  sarvam: "sarvam-moe",
};

const BY_NAME: ReadonlyMap<string, Pretokenizer> = new Map(
  Object.entries(NAMES).flatMap(([family, names]) =>
    names.split(" ").map((name) => [name, FAMILIES[family as keyof typeof FAMILIES]] as const),
  ),
);

export function findPretokenizer(name: string): Pretokenizer | undefined {
  return BY_NAME.get(name);
}

export function pretokenizerNames(): string[] {
  return [...BY_NAME.keys()].sort();
}
