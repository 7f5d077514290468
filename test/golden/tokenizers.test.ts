// Every visible vocabulary against the ids of the reference: plain strings without special tokens
// (.inp/.out) and awkward strings with them (.cases.json).
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createTokenizer } from "../../src/tokenizer/create-tokenizer.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { goldenFolder } from "../golden-folder.ts";

interface Case {
  text: string;
  tokenIds: number[];
  parseSpecial: boolean;
}

interface GreedyRun {
  prompt: string;
  promptTokenIds: number[];
  completionTokenIds: number[];
  text: string;
}

const golden = goldenFolder("tokenizer goldens");
const scratch = mkdtempSync(join(tmpdir(), "tinfer-tokenizers-"));
afterAll(() => rmSync(scratch, { recursive: true }));

function openVocabulary(folder: string, name: string): Tokenizer {
  const path = join(folder, `ggml-vocab-${name}.gguf`);
  if (readdirSync(folder).includes(`ggml-vocab-${name}.gguf`)) {
    return createTokenizer(readGguf(path).metadata);
  }
  const unpacked = join(scratch, `${name}.gguf`);
  writeFileSync(unpacked, Bun.gunzipSync(readFileSync(`${path}.gz`)));
  return createTokenizer(readGguf(unpacked).metadata);
}

function readPlainCases(folder: string, name: string): Case[] {
  const base = join(folder, `ggml-vocab-${name}.gguf`);
  const texts = readFileSync(`${base}.inp`, "utf8").split("\n__ggml_vocab_test__\n");
  const lines = readFileSync(`${base}.out`, "utf8").replace(/\n$/, "").split("\n");
  return lines.map((line, index) => ({
    text: texts[index] ?? "",
    tokenIds: line.trim() === "" ? [] : line.trim().split(/\s+/).map(Number),
    parseSpecial: false,
  }));
}

/** The texts that do not give the expected ids, with what they gave. */
function failures(tokenizer: Tokenizer, cases: readonly Case[], addSpecial: boolean) {
  return cases.flatMap(({ text, tokenIds, parseSpecial }) => {
    const actual = [...tokenizer.encode(text, { addSpecial, parseSpecial })];
    return Bun.deepEquals(actual, tokenIds) ? [] : [{ text, parseSpecial, tokenIds, actual }];
  });
}

if (golden !== undefined) {
  const folder = join(golden, "tokenizers");
  const names = readdirSync(folder).flatMap((file) => /^(.*)\.cases\.json$/.exec(file)?.[1] ?? []);

  test("there are vocabularies", () => {
    expect(names.length).toBeGreaterThan(0);
  });

  describe.each(names)("%s", (name) => {
    const tokenizer = openVocabulary(folder, name);

    test("encodes plain strings", () => {
      const cases = readPlainCases(folder, name);
      expect(cases.length).toBeGreaterThan(20);
      expect(failures(tokenizer, cases, false)).toEqual([]);
    });

    test("encodes awkward strings with special tokens", () => {
      const path = join(folder, `${name}.cases.json`);
      const cases = JSON.parse(readFileSync(path, "utf8")) as Case[];
      expect(cases.length).toBeGreaterThan(20);
      expect(failures(tokenizer, cases, true)).toEqual([]);
    });

    test("decodes what it encoded", () => {
      if (tokenizer.kind === "bert") return;
      for (const { text } of readPlainCases(folder, name)) {
        expect(tokenizer.decode(tokenizer.encode(text, { parseSpecial: false }))).toBe(text);
      }
    });
  });

  const models = join(golden, "models");
  const greedy = readdirSync(models).filter((file) => /\.greedy.*\.json$/.test(file));
  test.each(greedy)("prompts and completions of %s", (file) => {
    const path = join(models, file.replace(/\.greedy.*$/, ".gguf"));
    const tokenizer = createTokenizer(readGguf(path).metadata);
    const runs = JSON.parse(readFileSync(join(models, file), "utf8")) as GreedyRun[];
    expect(runs.length).toBeGreaterThan(0);
    for (const { prompt, promptTokenIds, completionTokenIds, text } of runs) {
      expect([...tokenizer.encode(prompt, { parseSpecial: false })]).toEqual(promptTokenIds);
      const detokenizer = tokenizer.createDetokenizer();
      const pieces = completionTokenIds.map((id) => detokenizer.push(id));
      expect(pieces.join("") + detokenizer.end()).toBe(text);
    }
  });
}
