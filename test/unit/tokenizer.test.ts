// Tokenizers on small made vocabularies: against plain oracles, on hostile input, and the rules
// around special tokens and detokenizing.
import { describe, expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import { CharacterMap } from "../../src/tokenizer/character-map.ts";
import { createTokenizer } from "../../src/tokenizer/create-tokenizer.ts";
import { findPretokenizer, pretokenizerNames } from "../../src/tokenizer/pretokenizer-table.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import type { Metadata } from "../../src/weights/metadata.ts";
import {
  byteEntries,
  createBpe,
  createMetadata,
  createRandom,
  createSpm,
  createWordVocabulary,
  type Entry,
  letterOf,
  pick,
  type Random,
  SPECIAL_ENTRIES,
  TextArray,
  TokenType,
} from "../fuzz/tokenizer-vocabularies.ts";

const plain = { parseSpecial: false, addSpecial: false };

function words(random: Random): string {
  const alphabet = [..."aabbccdefgst  \n.,é中🚀"];
  return Array.from({ length: 1 + Math.floor(random() * 30) }, () => pick(random, alphabet)).join(
    "",
  );
}

/** Joins the best pair, the leftmost among equals, until none is left. */
function mergeNaively(symbols: string[], cost: (left: string, right: string) => number): string[] {
  for (;;) {
    let best = -1;
    let bestCost = Infinity;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const pairCost = cost(symbols[i]!, symbols[i + 1]!);
      if (pairCost < bestCost) [best, bestCost] = [i, pairCost];
    }
    if (best < 0) return symbols;
    symbols.splice(best, 2, symbols[best]! + symbols[best + 1]!);
  }
}

describe("merging", () => {
  test("byte-level BPE merges as its definition says", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = createRandom(seed);
      // "superbpe" cuts only at digits, so that whole texts are merged.
      const { metadata, merges, tokens } = createBpe(random, "gpt2", "superbpe");
      const tokenizer = createTokenizer(metadata);
      const ranks = new Map(merges.map((merge, rank) => [merge, rank]));
      const ids = new Map(tokens.map((token, id) => [token, id]));
      for (let i = 0; i < 10; i++) {
        const text = words(random);
        const letters = [...Buffer.from(text)].map(letterOf);
        const merged = mergeNaively(letters, (l, r) => ranks.get(`${l} ${r}`) ?? Infinity);
        const expected = merged.flatMap(
          (symbol) => ids.get(symbol) ?? [...symbol].map((letter) => ids.get(letter)!),
        );
        expect([...tokenizer.encode(text, plain)]).toEqual(expected);
      }
    }
  });

  test("SentencePiece merges whole texts, although it works word by word", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = createRandom(seed);
      const metadata = createSpm(random, true);
      const tokenizer = createTokenizer(metadata);
      const tokens = (metadata.get("tokenizer.ggml.tokens") as TextArray).toArray();
      const scores = metadata.get("tokenizer.ggml.scores") as Float32Array;
      const ids = new Map(tokens.map((token, id) => [token, id]));
      const cost = (l: string, r: string) => {
        const id = ids.get(l + r);
        return id === undefined ? Infinity : -scores[id]!;
      };
      for (let i = 0; i < 10; i++) {
        const text = words(random);
        const merged = mergeNaively([...` ${text}`.replaceAll(" ", "▁")], cost);
        const expected = merged.flatMap(
          (symbol) => ids.get(symbol) ?? [...Buffer.from(symbol)].map((byte) => 3 + byte),
        );
        expect([...tokenizer.encode(text, plain)]).toEqual(expected);
      }
    }
  });

  const hostile = {
    "one letter": "a".repeat(100_000),
    "no spaces": Array.from({ length: 100_000 }, (_, i) => "abcdefgst"[(i * i + i) % 9]).join(""),
    spaces: `${" ".repeat(100_000)}7`,
    newlines: "\n".repeat(100_000),
    digits: `${"7".repeat(100_000)}a`,
    "marks and letters": "A'".repeat(50_000),
    words: "ab cd ".repeat(16_000),
    "special beginnings": "<|im".repeat(25_000),
  };
  const vocabularies: Record<string, Metadata> = {
    llama: createSpm(createRandom(1), true),
    gemma4: createBpe(createRandom(1), "gemma4", "gemma4").metadata,
    t5: createWordVocabulary(createRandom(1), "t5"),
    bert: createWordVocabulary(createRandom(1), "bert"),
  };
  const families = new Map(pretokenizerNames().map((name) => [findPretokenizer(name), name]));
  for (const name of families.values()) {
    vocabularies[`gpt2/${name}`] = createBpe(createRandom(1), "gpt2", name).metadata;
  }
  test.each(Object.keys(vocabularies))("%s stays fast on hostile text", (name) => {
    const tokenizer = createTokenizer(vocabularies[name]!);
    for (const text of Object.values(hostile)) {
      const start = performance.now();
      tokenizer.encode(text);
      expect(performance.now() - start).toBeLessThan(1000);
    }
  });
});

describe("special tokens", () => {
  const tokenizer = createTokenizer(createBpe(createRandom(3), "gpt2", "gpt-2").metadata);
  const idOf = (text: string) => tokenizer.findToken(text)!;

  test("control tokens are parsed only when asked, user-defined ones always", () => {
    const parsed = [...tokenizer.encode("a<|im_end|>b", { addSpecial: false })];
    expect(parsed[1]).toBe(idOf("<|im_end|>"));
    expect(parsed.length).toBe(3);
    const unparsed = [...tokenizer.encode("a<|im_end|>[[X]]", plain)];
    expect(unparsed).not.toContain(idOf("<|im_end|>"));
    expect(unparsed.at(-1)).toBe(idOf("[[X]]"));
  });

  test("a longer token wins over one that begins earlier", () => {
    const ids = tokenizer.encode("[[X]]é[[", plain);
    expect(tokenizer.decode(ids)).toBe("[[X]]é[[");
    expect([...ids].at(-1)).toBe(idOf("]]é[["));
  });

  test("known texts end generation", () => {
    expect(tokenizer.specialTokens.eotId).toBe(idOf("<|im_end|>"));
    expect([...tokenizer.specialTokens.endOfGenerationIds]).toEqual([idOf("<|im_end|>")]);
    expect(tokenizer.isControl(idOf("<|im_end|>"))).toBe(true);
    expect(tokenizer.isControl(idOf("[[X]]"))).toBe(false);
  });

  test("decoding hides control tokens unless they are to be shown", () => {
    const ids = tokenizer.encode("a<|im_end|>", { addSpecial: false });
    expect(tokenizer.decode(ids)).toBe("a");
    expect(tokenizer.decode(ids, { showSpecial: true })).toBe("a<|im_end|>");
  });

  test("a strike-through tag of HTML does not end generation", () => {
    const ending = (type: number) => {
      const entries = [...byteEntries(), { text: "</s>", type }, ...SPECIAL_ENTRIES];
      const extra = { merges: new TextArray(["a b"]), pre: "gpt-2" };
      const made = createTokenizer(createMetadata("gpt2", entries, extra));
      return made.specialTokens.endOfGenerationIds.has(made.findToken("</s>")!);
    };
    expect(ending(TokenType.normal)).toBe(false);
    expect(ending(TokenType.control)).toBe(true);
  });

  test("BOS and EOS come from the metadata, and only with addSpecial", () => {
    const entries: Entry[] = [{ text: "<s>", type: TokenType.control }, ...byteEntries()];
    const made = (extra: Record<string, boolean | number>) =>
      createTokenizer(
        createMetadata("llama", entries, { bos_token_id: 0, eos_token_id: 0, ...extra }),
      );
    expect([...made({}).encode("")]).toEqual([0]);
    expect([...made({ add_bos_token: false }).encode("")]).toEqual([]);
    expect([...made({ add_eos_token: true }).encode("")]).toEqual([0, 0]);
    expect([...made({}).encode("", { addSpecial: false })]).toEqual([]);
    const without = made({ add_bos_token: true, bos_token_id: 4_294_967_295, eos_token_id: 999 });
    expect(without.specialTokens.bosId).toBe(1);
    expect(without.specialTokens.eosId).toBe(2);
  });

  test("Phi-3 swallows the white space after a special token", () => {
    const metadata = new Map(createSpm(createRandom(1), true));
    metadata.set("general.name", "Phi3");
    const phi = createTokenizer(metadata);
    const ids = [...phi.encode("<|im_start|> \n<|im_end|>", { addSpecial: false })];
    expect(ids.map((id) => phi.tokenText(id))).toEqual(["<|im_start|>", "<|im_end|>"]);
  });
});

describe("detokenizing", () => {
  const spm = createTokenizer(createSpm(createRandom(5), true));

  test("decoding drops the space that encoding added, a stream keeps it", () => {
    const ids = spm.encode("abc", plain);
    expect(spm.decode(ids)).toBe("abc");
    const detokenizer = spm.createDetokenizer();
    const streamed = [...ids].map((id) => detokenizer.push(id)).join("") + detokenizer.end();
    expect(streamed).toBe(" abc");
    expect(spm.decode(spm.encode("  abc", plain))).toBe("  abc");
  });

  const pushBytes = (tokenizer: Tokenizer, bytes: readonly number[]) => {
    const detokenizer = tokenizer.createDetokenizer();
    const pieces = bytes.map((byte) => detokenizer.push(3 + byte));
    return [...pieces, detokenizer.end()];
  };

  test("a character waits for its last byte", () => {
    const pieces = pushBytes(spm, [...Buffer.from("🚀é")]);
    expect(pieces).toEqual(["", "", "", "🚀", "", "é", ""]);
  });

  test("bytes that are no text become U+FFFD", () => {
    expect(pushBytes(spm, [0xf0, 0x9f])).toEqual(["", "", "�"]);
    expect(pushBytes(spm, [0xf0, 0x41])).toEqual(["", "�A", ""]);
    expect(pushBytes(spm, [0xff])).toEqual(["�", ""]);
    expect(pushBytes(spm, [0xed, 0xa0]).join("")).toBe("���".slice(0, 2));
    expect(pushBytes(spm, [0xc3, 0xc3, 0xa9])).toEqual(["", "�", "é", ""]);
  });

  test("a byte order mark is text", () => {
    expect(pushBytes(spm, [0xef, 0xbb, 0xbf]).join("")).toBe("\uFEFF");
    expect(spm.decode(spm.encode("\uFEFFa", plain))).toBe("\uFEFFa");
  });

  test("pieces for display are always text", () => {
    expect(spm.tokenText(3 + 0xe2)).toBe("<0xE2>");
    expect(spm.tokenText(spm.findToken("▁")!)).toBe(" ");
    expect([...spm.tokenBytes(3 + 0xe2)]).toEqual([0xe2]);
  });

  test("ids outside the vocabulary are refused", () => {
    for (const id of [-1, spm.vocabSize, 0.5, Number.NaN]) {
      expect(() => spm.decode([id])).toThrow(TinferError);
      expect(() => spm.createDetokenizer().push(id)).toThrow(/token id/);
      expect(() => spm.tokenText(id)).toThrow(TinferError);
    }
  });
});

describe("Unicode", () => {
  test("lone surrogates count as U+FFFD", () => {
    for (const kind of [
      createSpm(createRandom(2), true),
      createBpe(createRandom(2), "gpt2", "qwen2").metadata,
    ]) {
      const tokenizer = createTokenizer(kind);
      expect(tokenizer.encode("a\uD800b\uDC00")).toEqual(tokenizer.encode("a\uFFFDb\uFFFD"));
    }
  });

  test("WordPiece folds case and accents, and cuts at punctuation and ideographs", () => {
    const texts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁cafe", "▁!", "▁中", "▁a", "b"];
    const entries = texts.map((text) => ({ text, type: text.startsWith("[") ? 3 : 1 }));
    const bert = createTokenizer(
      createMetadata("bert", entries, {
        bos_token_id: 2,
        seperator_token_id: 3,
        unknown_token_id: 1,
      }),
    );
    const pieces = (text: string) => [...bert.encode(text)].map((id) => texts[id]);
    expect(pieces("CAFÉ!ab中")).toEqual(["[CLS]", "▁cafe", "▁!", "▁a", "b", "▁中", "[SEP]"]);
    expect(pieces("ax a\u200B")).toEqual(["[CLS]", "[UNK]", "▁a", "[SEP]"]);
  });
});

describe("pairs of texts", () => {
  const texts = ["[UNK]", "[CLS]", "[SEP]", "[END]", "▁a", "▁b"];
  const entries = texts.map((text) => ({ text, type: text.startsWith("[") ? 3 : 1, score: -1 }));
  const pieces = (model: string, flags: Record<string, boolean | number>) => {
    const ids = { unknown_token_id: 0, bos_token_id: 1, seperator_token_id: 2 };
    const given = { ...ids, add_space_prefix: true, ...flags };
    const tokenizer = createTokenizer(createMetadata(model, entries, given));
    return [...tokenizer.encodePair("a", "b")].map((id) => texts[id]!).join(" ");
  };

  test("stand in the frame that the flags ask for", () => {
    expect(pieces("bert", {})).toBe("[CLS] ▁a [SEP] ▁b");
    expect(pieces("bert", { add_eos_token: true, add_sep_token: false })).toBe(
      "[CLS] ▁a [SEP] ▁b [SEP]",
    );
    // As XLM-R has it, whose separator is the end again.
    const all = { add_bos_token: true, add_eos_token: true, add_sep_token: true };
    expect(pieces("t5", { ...all, eos_token_id: 3 })).toBe("[CLS] ▁a [END] [SEP] ▁b [END]");
    expect(pieces("t5", { add_eos_token: false })).toBe("▁a ▁b");
  });

  test("text that looks like a special token is text", () => {
    const tokenizer = createTokenizer(createMetadata("bert", entries, { seperator_token_id: 2 }));
    expect(tokenizer.encodePair("[SEP]", "a").filter((id) => id === 2)).toHaveLength(1);
  });
});

describe("unigram", () => {
  test("takes the spelling with the best sum of scores", () => {
    const entries: Entry[] = [
      { text: "<pad>", type: TokenType.control },
      { text: "</s>", type: TokenType.control },
      { text: "<unk>", type: TokenType.unknown },
      ...[
        ["▁", -4],
        ["a", -3],
        ["b", -3],
        ["ab", -5],
        ["▁ab", -9],
        ["▁a", -5],
      ].map(([text, score]) => ({
        text: String(text),
        score: Number(score),
        type: TokenType.normal,
      })),
    ];
    const t5 = createTokenizer(createMetadata("t5", entries, { add_space_prefix: true }));
    const pieces = (text: string) => [...t5.encode(text)].map((id) => entries[id]!.text);
    expect(pieces("ab")).toEqual(["▁a", "b", "</s>"]);
    expect(pieces("axxb")).toEqual(["▁a", "<unk>", "b", "</s>"]);
    expect(pieces("x y")).toEqual(["▁", "<unk>", "▁", "<unk>", "</s>"]);
  });
});

describe("character map", () => {
  /** One node that maps "A" to "a": base 256 at the root, label, leaf bit and base at the child. */
  function compile(): Uint8Array {
    const nodes = new Uint32Array(512);
    nodes[0] = 256 << 10;
    nodes[256 ^ 65] = 65 | 0x100 | (1 << 10);
    nodes[256 ^ 65 ^ 1] = 0x80000000 + 2;
    const replacements = Buffer.from("z\0a\0");
    return Buffer.concat([Uint32Array.of(nodes.byteLength), nodes, replacements].map(toBytes));
  }
  function toBytes(array: Uint8Array | Uint32Array): Uint8Array {
    return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  }

  test("replaces what the table knows and keeps the rest", () => {
    expect(new CharacterMap(Uint8Array.from(compile())).apply("éAbA🚀")).toBe("éaba🚀");
    expect(new CharacterMap(undefined).apply("Ab")).toBe("Ab");
  });

  test("a damaged table is refused, not followed", () => {
    expect(() => new CharacterMap(compile().slice(0, 100))).toThrow(TinferError);
    const damaged = compile();
    damaged.set([0xff, 0xff, 0x7f], 4 + (256 ^ 65) * 4 + 1);
    expect(() => new CharacterMap(Uint8Array.from(damaged)).apply("A")).toThrow(TinferError);
  });

  test("merged spaces leave one in front of each word", () => {
    const texts = ["<pad>", "</s>", "<unk>", "▁a", "▁", "a"];
    const entries = texts.map((text, id) => ({ text, type: id < 3 ? 3 : 1, score: -id }));
    const t5 = createTokenizer(createMetadata("t5", entries, { remove_extra_whitespaces: true }));
    const pieces = (text: string) => [...t5.encode(text, plain)].map((id) => texts[id]);
    expect(pieces("  a   a ")).toEqual(["▁a", "▁a"]);
    expect(pieces("   ")).toEqual([]);
    expect(t5.decode(t5.encode("a a"))).toBe("a a");
  });
});

describe("refusals", () => {
  test("an unknown kind or pretokenizer is named, with those that are known", () => {
    const bpe = new Map(createBpe(createRandom(1), "gpt2", "gpt-2").metadata);
    bpe.set("tokenizer.ggml.pre", "qwen3");
    expect(() => createTokenizer(bpe)).toThrow(/pretokenizer 'qwen3'/);
    const other = new Map(bpe).set("tokenizer.ggml.model", "rwkv");
    expect(() => createTokenizer(other)).toThrow(/tokenizer kind 'rwkv'/);
    try {
      createTokenizer(other);
    } catch (error) {
      expect((error as TinferError).hint).toContain("llama, gpt2");
    }
    expect(() => createTokenizer(new Map())).toThrow(/no tokenizer/);
  });

  test("a vocabulary without tokens or merges, or with too few types, is refused", () => {
    const { metadata } = createBpe(createRandom(1), "gpt2", "gpt-2");
    for (const key of ["tokens", "merges"]) {
      const broken = new Map(metadata);
      broken.delete(`tokenizer.ggml.${key}`);
      expect(() => createTokenizer(broken)).toThrow(TinferError);
    }
    const short = new Map(metadata).set("tokenizer.ggml.token_type", new Int32Array(3));
    expect(() => createTokenizer(short)).toThrow(/does not cover/);
  });
});
