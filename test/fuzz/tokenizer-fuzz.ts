// Seeded fuzzing of the tokenizers: text survives encoding and decoding, streaming equals decoding
// at once, ordinary text forges no control token, and nothing throws. `run` throws on a failure
// and says with which seed.
import { createTokenizer } from "../../src/tokenizer/create-tokenizer.ts";
import { pretokenizerNames } from "../../src/tokenizer/pretokenizer-table.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import type { Metadata } from "../../src/weights/metadata.ts";
import {
  createBpe,
  createRandom,
  createSpm,
  createWordVocabulary,
  pick,
  type Random,
  SPECIAL_ENTRIES,
} from "./tokenizer-vocabularies.ts";

const FRAGMENTS = [
  ...SPECIAL_ENTRIES.map(({ text }) => text),
  ..."abcdefgst ABZ019.,!?'\"<>|[]{}()_-/\\\n\r\t",
  ...["  ", "    ", "\r\n", "\n\n\n", "'s", "'LL", "don't", "123", "1234567", "<s>", "</s>"],
  ...["é", "e\u0301", "ñ", "ß", "İ", "Σ", "中文", "日本語", "한국어", "กรุงเทพ", "नमस्ते", "مرحبا"],
  ...["❤️", "👨‍👩‍👧", "🇩🇪", "🏽", "𝔘", "𠀀", "\u{10FFFF}", "\uFFFD", "\uFEFF", "\u200B", "\u00A0"],
  ...[
    "\u3000",
    "\u0085",
    "\u2028",
    "\0",
    "\x7F",
    "\uD800",
    "\uDC00",
    "\uDBFF\uDBFF",
    "½",
    "٣",
    "<0x41>",
  ],
  ...["camelCase", "HTTPServer", "snake_case", "the ", " and", "IMGIMGABZ", "<sentinel:1>"],
];

function randomText(random: Random): string {
  const length = Math.floor(random() ** 3 * 120);
  const parts: string[] = [];
  for (let i = 0; i < length; i++) {
    const kind = random();
    if (kind < 0.8) parts.push(pick(random, FRAGMENTS));
    else if (kind < 0.9) parts.push(String.fromCodePoint(Math.floor(random() * 0x110000)));
    else if (kind < 0.95) parts.push(String.fromCharCode(Math.floor(random() * 0x10000)));
    else parts.push(pick(random, FRAGMENTS).repeat(Math.floor(random() * 40)));
  }
  return parts.join("");
}

interface Subject {
  name: string;
  tokenizer: Tokenizer;
  /** What decoding gives back for `text`; undefined where the vocabulary cannot say everything. */
  restored?: (text: string) => string;
  /** Does encoding put a space in front? Then a stream, which continues a prompt, keeps it. */
  addsSpace: boolean;
}

function createSubjects(random: Random): Subject[] {
  // U+2581 stands for the space in these kinds, so that it comes back as one.
  const withSpaces = (text: string) => text.replaceAll("▁", " ");
  const asIs = (text: string) => text;
  const create = (name: string, metadata: Metadata) => {
    return { name, tokenizer: createTokenizer(metadata) };
  };
  const pretokenizer = pick(random, pretokenizerNames());
  const escapes = /gemma4|granite-embed-multi-311m|sarvam/.test(pretokenizer);
  const byteLevel = escapes ? "qwen2" : pretokenizer;
  return [
    {
      ...create(`gpt2/${byteLevel}`, createBpe(random, "gpt2", byteLevel).metadata),
      restored: asIs,
      addsSpace: false,
    },
    {
      ...create("gemma4", createBpe(random, "gemma4", "gemma4").metadata),
      restored: withSpaces,
      addsSpace: false,
    },
    { ...create("llama", createSpm(random, true)), restored: withSpaces, addsSpace: true },
    { ...create("llama, bare", createSpm(random, false)), restored: withSpaces, addsSpace: false },
    { ...create("t5", createWordVocabulary(random, "t5")), addsSpace: true },
    { ...create("bert", createWordVocabulary(random, "bert")), addsSpace: true },
  ];
}

function check(condition: boolean, what: string, details: unknown): void {
  if (!condition) throw new Error(`${what}: ${JSON.stringify(details)}`);
}

function stream(tokenizer: Tokenizer, ids: ArrayLike<number>): string {
  const detokenizer = tokenizer.createDetokenizer();
  let text = "";
  for (let i = 0; i < ids.length; i++) {
    const piece = detokenizer.push(ids[i]!);
    check(piece.isWellFormed(), "half a character", { piece });
    text += piece;
  }
  return text + detokenizer.end();
}

function checkText({ tokenizer, restored, addsSpace }: Subject, text: string): void {
  const wellFormed = text.toWellFormed();
  const plain = tokenizer.encode(text, { parseSpecial: false });
  check(
    plain.every((id) => id >= 0 && id < tokenizer.vocabSize),
    "ids outside the vocabulary",
    text,
  );
  const repeated = tokenizer.encode(wellFormed, { parseSpecial: false });
  check(Bun.deepEquals(plain, repeated), "a second encoding differs", text);
  const bare = tokenizer.encode(text, { parseSpecial: false, addSpecial: false });
  check(!bare.some((id) => tokenizer.isControl(id)), "text forged a control token", text);
  const decoded = tokenizer.decode(plain);
  const special = tokenizer.encode(text, { addSpecial: false });
  const decodedSpecial = tokenizer.decode(special, { showSpecial: true });
  const streamed = stream(tokenizer, plain);
  if (!addsSpace) check(streamed === decoded, "the stream differs", { streamed, decoded });
  if (restored === undefined) return;
  const expected = restored(wellFormed);
  check(decoded === expected, "text does not survive", { expected, decoded });
  check(decodedSpecial === expected, "special text does not survive", { expected, decodedSpecial });
}

function checkIds({ tokenizer, addsSpace }: Subject, random: Random): void {
  const ids = Array.from({ length: Math.floor(random() * 50) }, () =>
    Math.floor(random() * tokenizer.vocabSize),
  );
  const decoded = tokenizer.decode(ids);
  check(decoded.isWellFormed(), "decoded half a character", ids);
  const streamed = stream(tokenizer, ids);
  if (!addsSpace) check(streamed === decoded, "the stream of ids differs", { streamed, decoded });
  for (const id of ids) check(tokenizer.tokenText(id).isWellFormed(), "ill-formed piece", id);
}

/** Fuzzes for about `seconds`; the same seed tries the same things. */
export function run(seconds: number, seed: number): void {
  const deadline = performance.now() + seconds * 1000;
  for (let round = 0; round === 0 || performance.now() < deadline; round++) {
    const roundSeed = seed + round;
    const random = createRandom(roundSeed);
    for (const subject of createSubjects(random)) {
      try {
        for (let i = 0; i < 40; i++) {
          checkText(subject, randomText(random));
          checkIds(subject, random);
        }
      } catch (cause) {
        throw new Error(`seed ${roundSeed}, ${subject.name}: ${(cause as Error).message}`, {
          cause,
        });
      }
    }
  }
}

if (import.meta.main) run(Number(process.argv[2] ?? 60), Number(process.argv[3] ?? 1));
