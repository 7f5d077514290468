// Encoding with a limit: what fits is encoded as ever, and no work goes into what does not.
import { expect, test } from "bun:test";
import { createTokenizer } from "../../src/tokenizer/create-tokenizer.ts";
import {
  createBpe,
  createMetadata,
  createRandom,
  createSpm,
  pick,
  type Random,
} from "../fuzz/tokenizer-vocabularies.ts";

function words(random: Random): string {
  const alphabet = [..."aabbccdefgst  \n.,é中🚀"];
  return Array.from({ length: 1 + Math.floor(random() * 30) }, () => pick(random, alphabet)).join(
    "",
  );
}

const wordPiece = createMetadata(
  "bert",
  ["[UNK]", "▁a", "b", "▁é", "▁."].map((text) => ({ text, type: text === "[UNK]" ? 2 : 1 })),
  { unknown_token_id: 0 },
);
const unigram = createMetadata(
  "t5",
  ["<unk>", "▁", "a", "▁b", "é"].map((text, id) => ({ text, score: -id, type: id ? 1 : 2 })),
  { unknown_token_id: 0, add_eos_token: false },
);
const cases = Array.from({ length: 10 }, (_, seed) => [
  createSpm(createRandom(seed), true),
  createSpm(createRandom(seed), false),
  createBpe(createRandom(seed), "gpt2", "qwen2").metadata,
  createBpe(createRandom(seed), "gpt2", "superbpe").metadata,
  createBpe(createRandom(seed), "gemma4", "gemma4").metadata,
  wordPiece,
  unigram,
]).flat();
const tooLong = new Error("too long");
/** 0: it is refused. */
const sizeOf = (encode: () => Int32Array) => {
  try {
    return encode().length;
  } catch (error) {
    expect(error).toBe(tooLong);
    return 0;
  }
};

test("a text has up to the limit the tokens that it has, beyond it an error", () => {
  for (const [seed, metadata] of cases.entries()) {
    const tokenizer = createTokenizer(metadata);
    const random = createRandom(seed);
    for (let i = 0; i < 20; i++) {
      const text = words(random);
      const whole = tokenizer.encode(text);
      const numTokens = Math.floor(random() * 2 * whole.length);
      const numCounted = numTokens + Math.floor(random() * 10);
      const limit = { numTokens, numCounted, error: () => tooLong };
      const limited = () => tokenizer.encode(text, { limit });
      if (whole.length > numCounted) expect(limited).toThrow(tooLong);
      else if (whole.length > numTokens) expect(sizeOf(limited)).toBeOneOf([whole.length, 0]);
      else expect(limited()).toEqual(whole);
    }
  }
});

test("without an error the first tokens are those of the whole text", () => {
  for (const [seed, metadata] of cases.entries()) {
    const tokenizer = createTokenizer(metadata);
    const random = createRandom(seed);
    const text = Array.from({ length: 20 }, () => words(random)).join(" ");
    const whole = tokenizer.encode(text);
    const numTokens = Math.floor(random() * whole.length);
    const first = tokenizer.encode(text, { limit: { numTokens, numCounted: numTokens } });
    expect(first.length).toBeGreaterThan(Math.min(numTokens, whole.length - 1));
    expect(first.slice(0, numTokens)).toEqual(whole.slice(0, numTokens));
  }
});

test("a text that no spelling makes short enough is not spelled", () => {
  const { metadata } = createBpe(createRandom(1), "gpt2", "superbpe");
  // It would be counted if it were spelled.
  const error = (moreThan: number) => new Error(`more than ${moreThan}`);
  const limit = { numTokens: 100, numCounted: 1e6, error };
  for (const made of [metadata, createSpm(createRandom(1), true)]) {
    const encode = () => createTokenizer(made).encode("a".repeat(10_000), { limit });
    expect(encode).toThrow("more than 100");
  }
});
