// Rerankers behind HTTP: the scores of llama.cpp for the same files, in the forms that clients of
// Jina, Cohere and Text Embeddings Inference know.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Engine } from "../../src/engine/engine.ts";
import { openModelText } from "../../src/engine/model-text.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { rankPrompt, relevance } from "../../src/engine/reranking.ts";
import { cpuReport } from "../../src/native/cpu-report.ts";
import { encodeGguf } from "../../src/weights/gguf-writer.ts";
import { encoderContextLen, tinyEncoder } from "../tiny-encoder.ts";
import { tinyRankingDecoder, tinyReranker } from "../tiny-reranker.ts";
import { jsonOf, startTestServer, type TestServer } from "./running-server.ts";

setDefaultTimeout(60_000);

const query = "abc";
const documents = ["abc d", "x yz", "abc"];
/** Of llama.cpp, for the query with each document. */
const reference = {
  encoder: [-1.459962, -1.4784418, -1.429216],
  decoder: [0.9117981, 0.9881826, 0.7885849],
} as const;

let folder: string;
let server: TestServer;
const pathOf = (name: keyof typeof reference) => join(folder, `${name}.gguf`);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-server-rerank-"));
  writeFileSync(pathOf("encoder"), encodeGguf(tinyReranker()));
  writeFileSync(pathOf("decoder"), encodeGguf(tinyRankingDecoder()));
  server = await serve(pathOf("encoder"));
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
  expect(server.bugs).toEqual([]);
});

const serve = (path: string) =>
  startTestServer({ path, template: undefined, contextLen: encoderContextLen });

/** llama.cpp takes the encoder's GELU from a table in half precision. */
const halfPrecision = 2e-3;

function expectClose(
  found: readonly number[],
  wanted: readonly number[],
  tolerance = halfPrecision,
): void {
  expect(found.length).toBe(wanted.length);
  const errors = wanted.map((value, i) => Math.abs(found[i]! - value));
  expect(Math.max(...errors)).toBeLessThan(tolerance);
}

/** The head by its definition: output · tanh(dense · state + bias) + bias. */
function headOf(state: Float32Array): number {
  const tensors = [...tinyReranker().tensors];
  const values = (name: string) => {
    const { content } = tensors.find((tensor) => tensor.name === name)!;
    return new Float32Array((content as Uint8Array<ArrayBuffer>).buffer);
  };
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  const dense = values("cls.weight");
  const hidden = values("cls.bias").map((bias, row) => {
    const weights = dense.subarray(row * state.length, (row + 1) * state.length);
    return Math.tanh(dot(weights, state) + bias);
  });
  return dot(values("cls.output.weight"), hidden) + values("cls.output.bias")[0]!;
}

describe("scores", () => {
  const executors = [
    { backend: "reference", cpuVariant: undefined },
    ...cpuReport().variants.map((cpuVariant) => ({ backend: "cpu", cpuVariant })),
  ];
  for (const name of ["encoder", "decoder"] as const) {
    for (const executor of executors) {
      test(`${name} ${executor.backend} ${executor.cpuVariant ?? ""}`, async () => {
        const kvTypes = { kvTypeK: "f32", kvTypeV: "f32" } as const;
        await using engine = new Engine(pathOf(name), {
          ...{ ...defaultModelOptions, ...kvTypes, ...executor },
          contextLen: encoderContextLen,
        });
        const text = openModelText(pathOf(name));
        const prompts = documents.map((document) => rankPrompt(text, query, document));
        const scores = await engine.embed(prompts, "rank");
        const found = scores.map((labels) => relevance(labels, engine.facts));
        if (name === "decoder") {
          expectClose(found, reference.decoder, 1e-5);
          return;
        }
        expectClose(found, reference.encoder);
        const states = await engine.embed(prompts, "cls");
        expectClose(found, states.map(headOf), 1e-5);
      });
    }
  }
});

interface Reranked {
  model: string;
  object: string;
  usage: { prompt_tokens: number; total_tokens: number };
  results: { index: number; relevance_score: number; document?: { text: string } }[];
}

test("the best first, under all names, strings or objects", async () => {
  const paths = ["/v1/rerank", "/v1/reranking", "/rerank", "/reranking"];
  const objects = documents.map((text) => ({ text }));
  for (const [i, path] of paths.entries()) {
    const body = { query, documents: i % 2 === 0 ? documents : objects };
    const reply = await jsonOf<Reranked>(server.post(path, body));
    expect(reply).toMatchObject({ model: "tiny", object: "list" });
    expect(reply.usage).toEqual({ prompt_tokens: 31, total_tokens: 31 });
    expect(reply.results.map(({ index }) => index)).toEqual([2, 0, 1]);
    const scores = reply.results.map(({ relevance_score }) => relevance_score);
    expectClose(
      scores,
      [2, 0, 1].map((index) => reference.encoder[index]!),
    );
  }
});

test("top_n, and documents on request", async () => {
  const body = { query, documents, top_n: 2, return_documents: true };
  const reply = await jsonOf<Reranked>(server.post("/v1/rerank", body));
  expect(reply.results.map(({ document }) => document)).toEqual([
    { text: documents[2]! },
    { text: documents[0]! },
  ]);
  const many = { query, documents, top_n: 9 };
  expect((await jsonOf<Reranked>(server.post("/v1/rerank", many))).results.length).toBe(3);
});

test("texts ask for the form of Text Embeddings Inference", async () => {
  const body = { query, texts: documents, return_text: true };
  const reply = await jsonOf<{ index: number; score: number; text: string }[]>(
    server.post("/rerank", body),
  );
  expect(reply.map(({ index, text }) => [index, text])).toEqual([
    [2, "abc"],
    [0, "abc d"],
    [1, "x yz"],
  ]);
  const scores = reply.map(({ score }) => score);
  expectClose(
    scores,
    [2, 0, 1].map((index) => reference.encoder[index]!),
  );
});

test("many documents at once are as alone", async () => {
  const many = Array.from({ length: 40 }, (_, i) => "ab ".repeat((i % 7) + 1));
  const all = await jsonOf<Reranked>(server.post("/v1/rerank", { query, documents: many }));
  const alone = await jsonOf<Reranked>(
    server.post("/v1/rerank", { query, documents: many.slice(3, 4) }),
  );
  const same = all.results.find(({ index }) => index === 3)!;
  expect(same.relevance_score).toBe(alone.results[0]!.relevance_score);
});

test("a decoder answers with the probability of yes", async () => {
  await using decoder = await serve(pathOf("decoder"));
  const reply = await jsonOf<Reranked>(decoder.post("/v1/rerank", { query, documents }));
  expect(reply.results.map(({ index }) => index)).toEqual([1, 0, 2]);
  // The KV cache of the server's model is f16.
  expect(reply.results[0]!.relevance_score).toBeCloseTo(reference.decoder[1], 2);
});

test("what cannot be ranked says why", async () => {
  const failing: [unknown, string][] = [
    [{ documents }, "query: "],
    [{ query }, "documents: is missing"],
    [{ query, documents, texts: documents }, "give one"],
    [{ query, documents: [] }, "documents"],
    [{ query, documents: [1] }, "expected a string or an object with a text"],
    [{ query, documents, top_n: 0 }, "top_n"],
    [{ query, documents: ["a ".repeat(60)] }, "context_length_exceeded"],
  ];
  for (const [body, part] of failing) {
    const response = await server.post("/v1/rerank", body);
    const text = await response.text();
    expect({ body, status: response.status, text }).toMatchObject({ status: 400 });
    expect(text).toContain(part);
  }
  const embedding = await (await server.post("/v1/embeddings", { input: "a" })).text();
  expect(embedding).toContain("ranks pairs of texts");
  expect(embedding).toContain("/v1/rerank");
});

test("models without a head are told apart", async () => {
  const refusals = [
    [1, "does not score documents"],
    [4, "has no head that scores texts"],
  ] as const;
  for (const [poolingType, part] of refusals) {
    const path = join(folder, `none-${poolingType}.gguf`);
    writeFileSync(path, encodeGguf(tinyEncoder(poolingType)));
    await using other = await serve(path);
    const response = await other.post("/v1/rerank", { query, documents });
    const text = await response.text();
    expect({ status: response.status, text }).toMatchObject({ status: 400 });
    expect(text).toContain(part);
  }
});
