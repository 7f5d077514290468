// Small seeded vocabularies of every kind for tests: byte-complete, with special tokens, and with
// merges learnt from nothing but chance.
import type { Metadata, MetadataValue, StringArray } from "../../src/weights/metadata.ts";

/** Numbers in [0, 1) that depend on the seed only (mulberry32). */
export type Random = () => number;

export function createRandom(seed: number): Random {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function pick<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)]!;
}

export class TextArray implements StringArray {
  readonly length: number;
  private readonly texts: readonly string[];

  constructor(texts: readonly string[]) {
    this.texts = texts;
    this.length = texts.length;
  }

  at(index: number): string {
    return this.texts[index]!;
  }

  bytesAt(index: number): Uint8Array {
    return new TextEncoder().encode(this.texts[index]!);
  }

  toArray(): string[] {
    return [...this.texts];
  }
}

export const TokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, byte: 6 } as const;

export interface Entry {
  text: string;
  type: number;
  score?: number;
}

export function createMetadata(
  model: string,
  entries: readonly Entry[],
  extra: Record<string, MetadataValue> = {},
): Metadata {
  const metadata = new Map<string, MetadataValue>([
    ["tokenizer.ggml.model", model],
    ["tokenizer.ggml.tokens", new TextArray(entries.map(({ text }) => text))],
    ["tokenizer.ggml.token_type", Int32Array.from(entries, ({ type }) => type)],
    ["tokenizer.ggml.scores", Float32Array.from(entries, ({ score }) => score ?? 0)],
  ]);
  for (const [key, value] of Object.entries(extra)) metadata.set(`tokenizer.ggml.${key}`, value);
  return metadata;
}

export const SPECIAL_ENTRIES: readonly Entry[] = [
  { text: "<|im_start|>", type: TokenType.control },
  { text: "<|im_end|>", type: TokenType.control },
  { text: "<|im", type: TokenType.userDefined },
  { text: "[[X]]", type: TokenType.userDefined },
  { text: "]]é[[", type: TokenType.userDefined },
];

const SEED_PIECES = [..."abcdefgst ▁  éäñ中文日本 한국 ❤️🚀🇩🇪 .,!?'\n\n\t0123456789<|>[]AZ"];

export function byteEntries(): Entry[] {
  return Array.from({ length: 256 }, (_, byte) => ({
    text: `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
    type: TokenType.byte,
  }));
}

/** Joins random pairs of `pieces`; each result may be joined again. */
function growMerges(random: Random, pieces: string[], count: number): [string, string][] {
  const known = new Set(pieces);
  const pairs = new Map<string, [string, string]>();
  for (let i = 0; i < count; i++) {
    const left = pick(random, pieces);
    const right = pick(random, pieces);
    if (left.length + right.length > 12) continue;
    pairs.set(`${left} ${right}`, [left, right]);
    if (!known.has(left + right)) {
      known.add(left + right);
      pieces.push(left + right);
    }
  }
  return [...pairs.values()];
}

export interface BpeVocabulary {
  metadata: Metadata;
  /** "left right" in order of rank. */
  merges: string[];
  tokens: string[];
}

/** Kind "gpt2" with the given pretokenizer, or "gemma4". */
export function createBpe(random: Random, model: string, pretokenizer: string): BpeVocabulary {
  const isRaw = model === "gemma4";
  const pieces = isRaw
    ? SEED_PIECES.filter((piece) => piece !== " ")
    : Array.from({ length: 256 }, (_, byte) => letterOf(byte));
  const alphabet = new Set(pieces);
  // Merges of rare bytes would never be used, so the text above is what they are made of.
  const start = isRaw
    ? [...alphabet]
    : [...new Set(SEED_PIECES.flatMap((piece) => [...Buffer.from(piece)].map(letterOf)))];
  const merges = growMerges(random, start, 800).map(([left, right]) => `${left} ${right}`);
  const tokens = [...new Set([...alphabet, ...start])];
  const entries: Entry[] = [
    ...tokens.map((text) => ({ text, type: TokenType.normal })),
    ...(isRaw ? byteEntries() : []),
    ...SPECIAL_ENTRIES,
  ];
  const metadata = createMetadata(model, entries, {
    pre: pretokenizer,
    merges: new TextArray(merges),
    bos_token_id: entries.findIndex(({ type }) => type === TokenType.control),
  });
  return { metadata, merges, tokens: entries.map(({ text }) => text) };
}

/** Kind "llama". */
export function createSpm(random: Random, addsSpacePrefix: boolean): Metadata {
  const pieces = SEED_PIECES.filter((piece) => piece !== " ");
  growMerges(random, pieces, 800);
  const entries: Entry[] = [
    { text: "<unk>", type: TokenType.unknown },
    { text: "<s>", type: TokenType.control },
    { text: "</s>", type: TokenType.control },
    ...byteEntries(),
    ...[...new Set(pieces)].map((text) => ({
      text,
      type: TokenType.normal,
      // Few different scores, so that ties happen.
      score: -Math.floor(random() * 200),
    })),
    ...SPECIAL_ENTRIES,
  ];
  return createMetadata("llama", entries, { add_space_prefix: addsSpacePrefix });
}

/** Kind "t5" or "bert": not byte-complete. */
export function createWordVocabulary(random: Random, model: string): Metadata {
  const pieces = SEED_PIECES.filter((piece) => piece !== " ");
  growMerges(random, pieces, 400);
  const entries: Entry[] = [
    { text: "<pad>", type: TokenType.control },
    { text: "</s>", type: TokenType.control },
    { text: "<unk>", type: TokenType.unknown },
    ...[...new Set(pieces)].map((text) => ({
      text,
      type: TokenType.normal,
      score: -random() * 20,
    })),
    ...SPECIAL_ENTRIES,
  ];
  return createMetadata(model, entries, {
    bos_token_id: 0,
    seperator_token_id: 1,
    unknown_token_id: 2,
    add_space_prefix: random() < 0.5,
    remove_extra_whitespaces: random() < 0.5,
  });
}

/** The letter of a byte in byte-level BPE, straight from its definition. */
export function letterOf(byte: number): string {
  const isVisible = (b: number) =>
    (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  if (isVisible(byte)) return String.fromCharCode(byte);
  let hidden = 0;
  for (let b = 0; b < byte; b++) if (!isVisible(b)) hidden++;
  return String.fromCharCode(256 + hidden);
}
