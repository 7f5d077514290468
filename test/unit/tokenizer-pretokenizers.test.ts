// How the pretokenizers cut text, each where it differs from the others.
import { expect, test } from "bun:test";
import { findPretokenizer, pretokenizerNames } from "../../src/tokenizer/pretokenizer-table.ts";
import { WordSplitter } from "../../src/tokenizer/word-splitter.ts";

function split(name: string, text: string): string[] {
  const ends = new WordSplitter(findPretokenizer(name)!).split(text);
  const words: string[] = [];
  for (let i = 0, start = 0; i < ends.length; i++) {
    words.push(text.slice(start, ends.at(i)));
    start = ends.at(i);
  }
  return words;
}

const CASES: [string, string, string[]][] = [
  ["gpt-2", "I'll go  12345\n", ["I", "'ll", " go", " ", " 12345", "\n"]],
  ["gpt-2", "I'LL", ["I", "'", "LL"]],
  ["starcoder", "a 12", ["a", " ", "1", "2"]],
  ["llama-bpe", "I'LL go 12345\n\n x", ["I", "'LL", " go", " ", "123", "45", "\n\n", " x"]],
  ["llama-bpe", "a...\n\nb", ["a", "...\n\n", "b"]],
  ["llama-bpe", "a\u0085\u00A0\uFEFFb", ["a", "\u0085", "\u00A0", "\uFEFFb"]],
  ["qwen2", "x123", ["x", "1", "2", "3"]],
  ["qwen2", "กรุง", ["กร", "ุง"]],
  ["qwen35", "กรุง", ["กรุง"]],
  ["deepseek-llm", "a b\n12é", ["a", " b", "\n", "12", "é"]],
  ["deepseek-llm", "a \u3000", ["a", " \u3000"]],
  ["deepseek-coder", "a 12", ["a", " ", "1", "2"]],
  ["deepseek-coder", "a \u3000,", ["a", " ", "\u3000,"]],
  ["deepseek-v3", "!abc 1234~ 中文", ["!abc", " ", "123", "4", "~", " ", "中文"]],
  [
    "falcon",
    "a=b 1234",
    ["a", "=", "b", " 1234"].flatMap((w) => (w === " 1234" ? [" ", "123", "4"] : w)),
  ],
  ["bloom", "a,b (c", ["a", ",", "b", " (", "c"]],
  ["viking", "a12", ["a", "1", "2"]],
  ["tekken", "camelCase HTTPServer 12", ["camel", "Case", " HTTPServer", " ", "1", "2"]],
  ["gpt-4o", "camelCase's 1234/\n", ["camel", "Case's", " ", "123", "4", "/\n"]],
  ["kimi-k2", "中文abc 1234", ["中文", "abc", " ", "123", "4"]],
  ["superbpe", "the 12345 x", ["the ", "12", "345", " x"]],
  ["tiny_aya", "12345 1234a", ["12", "345", " ", "1", "234", "a"]],
  ["tiny_aya", "1234½", ["12", "34½"]],
  ["afmoe", "12345", ["12", "345"]],
  ["afmoe", "a ꭰ", ["a", " ", "ꭰ"]],
  ["chameleon", "a!IMGIMGABZ", ["a", "!", "IMGIMGABZ"]],
  ["seed-coder", "a!\n", ["a", "!", "\n"]],
  ["bailingmoe", "a\n\n\nb", ["a", "\n\n\n", "b"]],
  ["exaone-moe", "two words, x", ["two words", ",", " x"]],
  ["jais-2", `a${" ".repeat(7)}b`, ["a", "    ", "  ", " b"]],
  ["ufakzeka", "Ali'nin", ["Ali", "'nin"]],
  ["laguna", "a\n\nb", ["a", "\n\n", "b"]],
  ["minicpm5", "12345", ["123", "45"]],
  ["gemma4", "a b\n\nc", ["a b", "\n\n", "c"]],
  ["youtu", "한국 中文abc", ["한국", " ", "中文", "abc"]],
  ["default", "a.b 1234", ["a", ".", "b", " ", "123", "4"]],
];

test.each(CASES)("%s cuts %j", (name, text, expected) => {
  expect(split(name, text)).toEqual(expected);
});

test("every pretokenizer keeps all of the text", () => {
  const text = "A b'c 12345 中文한국 é\u0301 \n\n\t  x!?~`$ 🚀👩‍🚀 \u0085\u3000 <sentinel:7> ½٣";
  for (const name of pretokenizerNames()) {
    const words = split(name, text);
    expect(words.join("")).toBe(text);
    expect(words.every((word) => word.length > 0 && word.isWellFormed())).toBe(true);
    expect(split(name, "")).toEqual([]);
  }
});
