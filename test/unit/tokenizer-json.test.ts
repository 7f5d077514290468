// Variants of tokenizer.json on a small vocabulary: what each component changes, and that unknown
// components are refused.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JsonObject } from "../../src/hugging-face/json-file.ts";
import { MetadataValues } from "../../src/hugging-face/metadata-values.ts";
import { toJavaScript } from "../../src/hugging-face/regex-syntax.ts";
import { tokenizerMetadata } from "../../src/hugging-face/tokenizer.ts";
import { createTokenizer } from "../../src/tokenizer/create-tokenizer.ts";
import { plainMetadata } from "../../src/weights/gguf-values.ts";
import type { Metadata } from "../../src/weights/metadata.ts";

const scratch = mkdtempSync(join(tmpdir(), "tinfer-tokenizer-json-"));
afterAll(() => rmSync(scratch, { recursive: true }));
let count = 0;

type Files = Readonly<Record<string, unknown>>;

function metadataOf(json: object, files: Files = {}, config: object = {}): Metadata {
  const folder = join(scratch, String(count++));
  mkdirSync(folder);
  for (const [name, content] of Object.entries({ "tokenizer.json": json, ...files })) {
    const text = typeof content === "string" ? content : JSON.stringify(content);
    writeFileSync(join(folder, name), text);
  }
  const values = new MetadataValues("llama");
  tokenizerMetadata(folder, new JsonObject("config.json", config as never), values);
  return plainMetadata(values.values);
}

const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
const vocab = { "<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, a: 4, b: 5, "▁a": 6, ab: 7, "▁ab": 8 };
const model = {
  ...{ type: "BPE", byte_fallback: true, unk_token: "<unk>", vocab },
  merges: ["▁ a", "a b", "▁a b"],
};
const added_tokens = [
  { id: 0, content: "<unk>", special: true },
  { id: 1, content: "<s>", special: true },
  { id: 2, content: "</s>", special: true },
];
const spaces = { added_tokens, model, normalizer: replace };
const metaspace = (prepend_scheme: string) => {
  const pre_tokenizer = { type: "Metaspace", replacement: "▁", prepend_scheme, split: false };
  return { added_tokens, model, pre_tokenizer };
};
const idsOf = (json: object, text: string, files?: Files) => [
  ...createTokenizer(metadataOf(json, files)).encode(text),
];

describe("spaces in front of texts", () => {
  test("none where nothing puts them there", () => {
    expect(idsOf(spaces, "ab")).toEqual([7]);
  });
  test("always, and doubled, by Prepend", () => {
    const normalizers = [{ type: "Prepend", prepend: "▁" }, replace];
    const json = { ...spaces, normalizer: { type: "Sequence", normalizers } };
    expect(idsOf(json, "ab<s>ab")).toEqual([8, 1, 8]);
    expect(idsOf(json, " ab")).toEqual([3, 8]);
  });
  test("always, but not doubled, by Metaspace", () => {
    expect(idsOf(metaspace("always"), "ab<s>ab")).toEqual([8, 1, 8]);
    expect(idsOf(metaspace("always"), " ab")).toEqual([8]);
  });
  test("only at the beginning by Metaspace's first", () => {
    expect(idsOf(metaspace("first"), "ab<s>ab")).toEqual([8, 1, 7]);
    expect(idsOf(metaspace("first"), "<s>ab")).toEqual([1, 7]);
  });
});

test("the order of merges decides, not the longest token", () => {
  const json = { ...spaces, model: { ...model, merges: ["a b", "▁ a", "▁ ab"] } };
  expect(idsOf(json, " ab")).toEqual([8]);
  const other = { ...spaces, model: { ...model, merges: ["a b", "▁ a"] } };
  expect(idsOf(other, " ab")).toEqual([3, 7]);
});

describe("what goes around a text", () => {
  const template = (...single: string[]) => ({
    type: "TemplateProcessing",
    single: single.map((id) => (id === "A" ? { Sequence: { id } } : { SpecialToken: { id } })),
  });
  test("is what the post-processor says", () => {
    const post_processor = template("<s>", "A", "</s>");
    const files = { "tokenizer_config.json": { eos_token: "</s>" } };
    expect(idsOf({ ...spaces, post_processor }, "a", files)).toEqual([1, 4, 2]);
  });
  test("is what the flags say for classes that follow them", () => {
    const post_processor = template("<s>", "A");
    const flags = { bos_token: "<s>", add_bos_token: false };
    const json = { ...spaces, post_processor };
    const open = (more: object) =>
      idsOf(json, "a", { "tokenizer_config.json": { ...flags, ...more } });
    expect(open({ tokenizer_class: "LlamaTokenizer" })).toEqual([4]);
    expect(open({ tokenizer_class: "PreTrainedTokenizerFast" })).toEqual([1, 4]);
  });
  test("of several tokens is refused", () => {
    const post_processor = template("<s>", "<s>", "A");
    expect(() => metadataOf({ ...spaces, post_processor })).toThrow(/<s><s> around the text/);
  });
});

test("all ids that end generation are kept", () => {
  const files = { "generation_config.json": { eos_token_id: [2, 0] } };
  const { specialTokens } = createTokenizer(metadataOf(spaces, files));
  expect([...specialTokens.endOfGenerationIds].sort()).toEqual([0, 2]);
});

test("tokens without a row in the embedding are left out, rows without a token are padding", () => {
  const tokensOf = (vocab_size: number) => {
    const tokens = metadataOf(spaces, {}, { vocab_size }).get("tokenizer.ggml.tokens");
    return (tokens as { toArray(): string[] }).toArray();
  };
  expect(tokensOf(8).at(-1)).toBe("ab");
  expect(tokensOf(11).at(-1)).toBe("[PAD10]");
});

test("added tokens swallow the spaces that they are said to", () => {
  const tokens = [...added_tokens, { id: 9, content: "<x>", special: true, rstrip: true }];
  const json = { ...spaces, added_tokens: tokens };
  expect(idsOf(json, "<x>  ab")).toEqual([9, 7]);
});

test("normalisation forms apply to ordinary text", () => {
  const composed = { ...model, vocab: { ...vocab, é: 9 } };
  const normalizer = { type: "Sequence", normalizers: [{ type: "NFC" }, replace] };
  expect(idsOf({ added_tokens, model: composed, normalizer }, "e\u0301")).toEqual([9]);
});

test("Unigram: the best spelling", () => {
  const pieces = [
    ["<unk>", 0],
    ["</s>", 0],
    ["▁", -3],
    ["a", -4],
    ["b", -4],
    ["▁ab", -5],
  ];
  const json = {
    added_tokens: [{ id: 1, content: "</s>", special: true }],
    model: { type: "Unigram", unk_id: 0, vocab: pieces },
    pre_tokenizer: { type: "Metaspace", replacement: "▁", add_prefix_space: true },
  };
  expect(idsOf(json, "ab ba")).toEqual([5, 2, 4, 3]);
  const fallback = { ...json, model: { ...json.model, byte_fallback: true } };
  expect(() => metadataOf(fallback)).toThrow(/byte_fallback/);
});

test("templates come from their own file, the configuration, or a named list", () => {
  const key = "tokenizer.chat_template";
  const config = { chat_template: "from config" };
  const files = { "tokenizer_config.json": config, "chat_template.jinja": "from file" };
  expect(metadataOf(spaces, files).get(key)).toBe("from file");
  expect(metadataOf(spaces, { "tokenizer_config.json": config }).get(key)).toBe("from config");
  const named = [
    { name: "default", template: "plain" },
    { name: "tool_use", template: "tools" },
  ];
  const both = metadataOf(spaces, { "tokenizer_config.json": { chat_template: named } });
  expect([both.get(key), both.get(`${key}.tool_use`)]).toEqual(["plain", "tools"]);
});

describe("unknown components are refused:", () => {
  const cases: readonly (readonly [string, object, RegExp])[] = [
    ["a model", { ...spaces, model: { ...model, type: "WordLevel" } }, /BPE, Unigram or WordPiece/],
    ["a normalizer", { ...spaces, normalizer: { type: "Lowercase" } }, /normalizer.*Lowercase/],
    ["a pretokenizer", { ...spaces, pre_tokenizer: { type: "Bert" } }, /pre_tokenizer.*Bert/],
    ["a post-processor", { ...spaces, post_processor: { type: "X" } }, /post_processor.*X/],
    ["a suffix", { ...spaces, model: { ...model, end_of_word_suffix: "</w>" } }, /end_of_word/],
    ["merges of three", { ...spaces, model: { ...model, merges: ["a b c"] } }, /merges/],
    ["ids that are no ids", { ...spaces, model: { ...model, vocab: { a: 1.5 } } }, /id 1.5/],
    ["huge ids", { ...spaces, model: { ...model, vocab: { a: 2 ** 30 } } }, /id 1073741824/],
    ["no model", { added_tokens }, /'model' is missing/],
  ];
  for (const [name, json, message] of cases) {
    test(name, () => expect(() => metadataOf(json)).toThrow(message));
  }
  test("a tokenizer in another form", () => {
    const folder = join(scratch, "other");
    mkdirSync(folder);
    writeFileSync(join(folder, "tokenizer.model"), "");
    const open = () =>
      tokenizerMetadata(folder, new JsonObject("config.json", {}), new MetadataValues("llama"));
    expect(open).toThrow(/tokenizer.model but no tokenizer.json/);
  });
});

describe("regular expressions", () => {
  const cut = (pattern: string, text: string) =>
    text.match(new RegExp(toJavaScript(pattern)!, "gv"));
  test("mean the same in JavaScript", () => {
    expect(cut(String.raw`(?i:'s)|\p{L}+|\s+`, "it'S a\u0085b")).toEqual([
      "it",
      "'S",
      " ",
      "a",
      "\u0085",
      "b",
    ]);
    expect(cut(String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_{|}~]+`, "a(){}[]&&b")).toEqual([
      "(){}[]&&",
    ]);
    expect(cut(String.raw`\p{Han}+|[^\r\n\p{N}]`, "中a1")).toEqual(["中", "a"]);
  });
  test("without an equal are refused", () => {
    for (const pattern of ["a++", "[[:alpha:]]", String.raw`\h`, "(", String.raw`\p{Nonsense}`]) {
      expect(toJavaScript(pattern)).toBe(undefined);
    }
  });
});
