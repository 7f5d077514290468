// Commands on a model that makes embeddings and generates nothing.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeGguf } from "../../src/weights/gguf-writer.ts";
import { encoderContextLen, encoderHiddenSize, tinyEncoder } from "../tiny-encoder.ts";
import { root, tinfer, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

let folder: string;
const models = { mean: 1, cls: 2, last: 3, none: 0, rank: 4, open: undefined } as const;
const modelOf = (name: keyof typeof models) => join(folder, `${name}.gguf`);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-encoder-"));
  for (const [name, poolingType] of Object.entries(models)) {
    writeFileSync(join(folder, `${name}.gguf`), encodeGguf(tinyEncoder(poolingType)));
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Embeddings {
  embeddings: number[][];
  promptTokens: number;
}

test("what needs a next token says what the model does instead", async () => {
  const model = modelOf("mean");
  const output = join(folder, "no.f32");
  const all = await Promise.all([
    tinfer(["run", model, "a b"]),
    tinfer(["chat", model], { stdin: "a\n" }),
    tinfer(["bench", model, "-p", "4", "-n", "0", "-r", "1"]),
    tinfer(["logits", model, "--prompt", "a", "-o", output]),
  ]);
  for (const { stdout, stderr, exitCode } of all) {
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 1 });
    expect(stderr).toContain("'bert' models are encoders");
    expect(stderr).toContain("tinfer embed");
    expect(stderr).toContain("/v1/embeddings");
  }
});

test("the model's own pooling is the default, and a flag takes its place", async () => {
  const embed = (name: keyof typeof models, ...flags: string[]) =>
    tinferJson<Embeddings>(["embed", modelOf(name), "abc def", ...flags]);
  const states = await embed("cls", "--pooling", "none", "--no-normalize");
  const rows = states.embeddings[0] as unknown as number[][];
  expect(rows.length).toBe(states.promptTokens);
  const wanted = {
    cls: rows[0]!,
    last: rows.at(-1)!,
    mean: rows[0]!.map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length),
  };
  const [cls, last, mean, open, asked, none] = await Promise.all([
    embed("cls", "--no-normalize"),
    embed("last", "--no-normalize"),
    embed("mean", "--no-normalize"),
    embed("open", "--no-normalize"),
    embed("mean", "--no-normalize", "--pooling", "cls"),
    embed("none"),
  ]);
  const expectClose = (found: Embeddings, expected: readonly number[]) => {
    expect(found.embeddings[0]!.length).toBe(encoderHiddenSize);
    expected.forEach((value, i) => {
      expect(found.embeddings[0]![i]).toBeCloseTo(value, 5);
    });
  };
  expectClose(cls, wanted.cls);
  expectClose(asked, wanted.cls);
  expectClose(last, wanted.last);
  expectClose(mean, wanted.mean);
  expectClose(open, wanted.mean);
  for (const row of none.embeddings[0] as unknown as number[][]) {
    expect(Math.hypot(...row)).toBeCloseTo(1, 5);
  }
  const rank = await tinfer(["embed", modelOf("rank"), "a"]);
  expect(rank.exitCode).toBe(1);
  expect(rank.stderr).toContain("ranks pairs of texts");
});

test("a text may fill the context; one token more is an error with the numbers", async () => {
  const fits = "a ".repeat(encoderContextLen - 2);
  const { embeddings, promptTokens } = await tinferJson<Embeddings>([
    ...["embed", modelOf("mean"), fits, "b"],
  ]);
  expect(embeddings.length).toBe(2);
  expect(promptTokens).toBe(encoderContextLen + 3);
  const tooLong = await tinfer(["embed", modelOf("mean"), `${fits}a`]);
  expect(tooLong.exitCode).toBe(1);
  expect(tooLong.stderr).toContain(`${encoderContextLen + 1} tokens`);
  expect(tooLong.stderr).toContain(`${encoderContextLen} positions`);
  const larger = await tinfer(["embed", modelOf("mean"), "a", "--ctx", "64"]);
  expect(larger).toMatchObject({ exitCode: 2 });
  expect(larger.stderr).toContain(`--ctx ${encoderContextLen}`);
});

test("many texts side by side have the vectors that they have alone", async () => {
  const texts = Array.from({ length: 150 }, (_, i) => "abc xyz ".repeat((i % 6) + 1));
  const all = await tinfer(["embed", modelOf("mean")], { stdin: texts.join("\n") });
  const vectors = all.stdout.trimEnd().split("\n");
  expect(vectors.length).toBe(150);
  for (const i of [0, 5]) {
    const alone = await tinfer(["embed", modelOf("mean"), texts[i]!]);
    expect(vectors[i]).toBe(alone.stdout.trimEnd());
    expect(vectors[i + 144]).toBe(alone.stdout.trimEnd());
  }
});

test("raw hidden states, of an encoder in one step and of a decoder in any", async () => {
  const [whole, cut] = [join(folder, "whole.f32"), join(folder, "cut.f32")];
  const encoder = ["logits", modelOf("mean"), "--prompt", "abc def", "--hidden", "-o"];
  const { stdout } = await tinfer([...encoder, whole]);
  const { tokens, hiddenSize } = JSON.parse(stdout);
  expect(hiddenSize).toBe(encoderHiddenSize);
  expect(statSync(whole).size).toBe(tokens * hiddenSize * 4);
  const inChunks = await tinfer([...encoder, cut, "--chunk", "2"]);
  expect(inChunks.exitCode).toBe(2);
  expect(inChunks.stderr).toContain("in one step");
  const builtIn = join(root, "assets", "stories260K.gguf");
  const decoder = ["logits", builtIn, "--prompt", "Once upon", "--hidden", "-o"];
  await Promise.all([tinfer([...decoder, whole]), tinfer([...decoder, cut, "--chunk", "1"])]);
  expect(readFileSync(whole).equals(readFileSync(cut))).toBe(true);
});

test("hidden states are those that llama.cpp computes", async () => {
  // Of the third token, the first values.
  const expected = {
    bert: [-1.299, -1.19554, -0.48233, 1.05646, 1.1416, 0.35841, -1.24797, -0.3961],
    "nomic-bert": [-0.17088, -0.50574, -0.82976, -0.07361, 0.20377, -0.63492, -0.58643, -0.61685],
  } as const;
  for (const architecture of ["bert", "nomic-bert"] as const) {
    const model = join(folder, `${architecture}.gguf`);
    const output = join(folder, `${architecture}.f32`);
    writeFileSync(model, encodeGguf(tinyEncoder(1, architecture)));
    const ids = "2,4,7,9,11,30,22,17,40,3";
    const { exitCode } = await tinfer([
      ...["logits", model, "--token-ids", ids, "--hidden", "-o", output],
    ]);
    expect(exitCode).toBe(0);
    const states = new Float32Array(await Bun.file(output).arrayBuffer());
    const row = states.subarray(2 * encoderHiddenSize);
    // Its GELU is a table in half precision; SiLU is not.
    const digits = architecture === "bert" ? 2 : 4;
    for (const [i, value] of expected[architecture].entries()) {
      expect(row[i]).toBeCloseTo(value, digits);
    }
  }
});

test("show, plan and tokenize work", async () => {
  const model = modelOf("mean");
  const [shown, planned, tokenized] = await Promise.all([
    tinferJson<{ architectureKnown: boolean }>(["show", model]),
    tinferJson<{ maxContextLen: number }>(["plan", model]),
    tinferJson<{ tokenIds: number[] }>(["tokenize", model, "ab"]),
  ]);
  expect(shown.architectureKnown).toBe(true);
  expect(planned.maxContextLen).toBe(encoderContextLen);
  expect(tokenized.tokenIds).toEqual([2, 4, 7, 3]);
});
