// tokenizer.json: the golden vocabularies in Hugging Face's form give the reference's ids.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JsonObject } from "../../src/hugging-face/json-file.ts";
import { MetadataValues } from "../../src/hugging-face/metadata-values.ts";
import { tokenizerMetadata } from "../../src/hugging-face/tokenizer.ts";
import { createTokenizer } from "../../src/tokenizer/create-tokenizer.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { plainMetadata } from "../../src/weights/gguf-values.ts";
import { getNumbers, getStrings, type Metadata } from "../../src/weights/metadata.ts";
import { goldenFolder } from "../golden-folder.ts";

const golden = goldenFolder("tokenizer.json goldens");
const scratch = mkdtempSync(join(tmpdir(), "tinfer-tokenizer-json-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const gpt4 = (digits: string) =>
  `${contraction}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*` +
  "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const byteLevel = (use_regex: boolean) => {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex };
};
const split = (Regex: string) => {
  return { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false };
};
const sequence = (...pretokenizers: unknown[]) => ({ type: "Sequence", pretokenizers });

interface Form {
  readonly name: string;
  /** The pretokenizer that is recognised, or undefined where its patterns are taken over. */
  readonly pre?: string;
  readonly json: Record<string, unknown>;
  readonly ignoreMerges?: boolean;
}

const byteForms: readonly Form[] = [
  { name: "gpt-2", pre: "gpt-2", json: { pre_tokenizer: byteLevel(true) } },
  {
    name: "llama-bpe",
    pre: "llama-bpe",
    ignoreMerges: true,
    json: { pre_tokenizer: sequence(split(gpt4("\\p{N}{1,3}")), byteLevel(false)) },
  },
  {
    name: "qwen2",
    pre: "qwen2",
    json: { pre_tokenizer: sequence(split(gpt4("\\p{N}")), byteLevel(false)) },
  },
  {
    name: "starcoder",
    pre: "smollm",
    json: {
      pre_tokenizer: sequence({ type: "Digits", individual_digits: true }, byteLevel(true)),
    },
  },
  {
    // The same words by an expression that has no name.
    name: "qwen2",
    json: { pre_tokenizer: sequence(split(`(?:${gpt4("\\p{N}")})`), byteLevel(false)) },
  },
];

const addedTypes = new Set([2, 3, 4]);

/** tokenizer.json of a GGUF vocabulary, without what goes around a text. */
function toJson(metadata: Metadata, model: object, rest: object) {
  const tokens = getStrings(metadata, "tokenizer.ggml.tokens")!.toArray();
  const types = getNumbers(metadata, "tokenizer.ggml.token_type")!;
  const added_tokens = tokens.flatMap((content, id) => {
    if (!addedTypes.has(Number(types[id]))) return [];
    return [{ id, content, special: Number(types[id]) !== 4, lstrip: false, rstrip: false }];
  });
  return { added_tokens, model, normalizer: null, post_processor: null, ...rest };
}

let count = 0;
function open(json: object): { tokenizer: Tokenizer; metadata: Metadata } {
  const folder = join(scratch, String(count++));
  mkdirSync(folder);
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json));
  const values = new MetadataValues("llama");
  tokenizerMetadata(folder, new JsonObject("config.json", {}), values);
  const metadata = plainMetadata(values.values);
  return { tokenizer: createTokenizer(metadata), metadata };
}

function checkAll(folder: string, name: string, tokenizer: Tokenizer): void {
  const base = join(folder, `ggml-vocab-${name}.gguf`);
  const texts = readFileSync(`${base}.inp`, "utf8").split("\n__ggml_vocab_test__\n");
  const lines = readFileSync(`${base}.out`, "utf8").replace(/\n$/, "").split("\n");
  expect(lines.length).toBeGreaterThan(20);
  lines.forEach((line, index) => {
    const wanted = line.trim() === "" ? [] : line.trim().split(/\s+/).map(Number);
    const options = { addSpecial: false, parseSpecial: false };
    expect([...tokenizer.encode(texts[index] ?? "", options)]).toEqual(wanted);
  });
}

const idsOf = (tokens: readonly string[]) =>
  Object.fromEntries(tokens.map((text, id) => [text, id]));

/** As Hugging Face converts SentencePiece models: all pairs that make a token, best score first. */
function mergesOf(metadata: Metadata): string[] {
  const tokens = getStrings(metadata, "tokenizer.ggml.tokens")!.toArray();
  const scores = getNumbers(metadata, "tokenizer.ggml.scores")!;
  const types = getNumbers(metadata, "tokenizer.ggml.token_type")!;
  const ids = new Map(tokens.map((text, id) => [text, id]));
  const merges: { text: string; score: number }[] = [];
  tokens.forEach((token, id) => {
    if (Number(types[id]) !== 1) return;
    const letters = [...token];
    for (let cut = 1; cut < letters.length; cut++) {
      const [left, right] = [letters.slice(0, cut).join(""), letters.slice(cut).join("")];
      if (!ids.has(left) || !ids.has(right)) continue;
      merges.push({ text: `${left} ${right}`, score: Number(scores[id]) });
    }
  });
  return merges.sort((a, b) => b.score - a.score).map(({ text }) => text);
}

if (golden !== undefined) {
  const folder = join(golden, "tokenizers");
  const read = (name: string) => readGguf(join(folder, `ggml-vocab-${name}.gguf`)).metadata;

  describe("byte-level BPE", () => {
    for (const { name, pre, json, ignoreMerges } of byteForms) {
      test(`${name} by ${pre ?? "its own patterns"}`, () => {
        const source = read(name);
        const vocab = idsOf(getStrings(source, "tokenizer.ggml.tokens")!.toArray());
        const merges = getStrings(source, "tokenizer.ggml.merges")!.toArray();
        const model = { type: "BPE", vocab, merges, ignore_merges: ignoreMerges ?? false };
        const { tokenizer, metadata } = open(toJson(source, model, json));
        expect(metadata.get("tokenizer.ggml.pre")).toBe(pre as never);
        checkAll(folder, name, tokenizer);
      });
    }
  });

  describe("SentencePiece BPE by merges", () => {
    const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
    const forms = {
      normalizers: {
        normalizer: {
          type: "Sequence",
          normalizers: [{ type: "Prepend", prepend: "▁" }, replace],
        },
      },
    };
    for (const name of ["llama-spm", "phi-3"]) {
      for (const [form, json] of Object.entries(forms)) {
        test(`${name}, ${form}`, () => {
          const source = read(name);
          const tokens = getStrings(source, "tokenizer.ggml.tokens")!.toArray();
          const model = {
            ...{ type: "BPE", byte_fallback: true, unk_token: "<unk>", vocab: idsOf(tokens) },
            merges: mergesOf(source).map((merge) => merge.split(" ")),
          };
          checkAll(folder, name, open(toJson(source, model, json)).tokenizer);
        });
      }
    }
  });

  test("WordPiece", () => {
    const source = read("bert-bge");
    const types = getNumbers(source, "tokenizer.ggml.token_type")!;
    const tokens = getStrings(source, "tokenizer.ggml.tokens")!.toArray();
    const written = tokens.map((text, id) => {
      if (addedTypes.has(Number(types[id])) || /^\[/.test(text)) return text;
      return text.startsWith("▁") ? text.slice(1) : `##${text}`;
    });
    const model = { type: "WordPiece", unk_token: "[UNK]", vocab: idsOf(written) };
    const added_tokens = ["[UNK]", "[CLS]", "[SEP]"].map((content) => {
      return { id: written.indexOf(content), content, special: true };
    });
    const normalizer = { type: "BertNormalizer", lowercase: true, strip_accents: null };
    const post_processor = { type: "BertProcessing", cls: ["[CLS]", 101], sep: ["[SEP]", 102] };
    const rest = { normalizer, pre_tokenizer: { type: "BertPreTokenizer" }, post_processor };
    const { tokenizer } = open({ ...toJson(source, model, rest), added_tokens });
    checkAll(folder, "bert-bge", tokenizer);
    const framed = tokenizer.encode("a");
    expect([framed[0], framed.at(-1)]).toEqual([101, 102]);
  });
}
