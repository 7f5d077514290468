// A served encoder: embeddings in every dialect, clear errors for what needs a next token.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeGguf } from "../../src/weights/gguf-writer.ts";
import { encoderContextLen, encoderHiddenSize, tinyEncoder } from "../tiny-encoder.ts";
import { jsonOf, startTestServer, type TestServer } from "./running-server.ts";

setDefaultTimeout(60_000);

let folder: string;
let server: TestServer;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-server-encoder-"));
  const path = join(folder, "tiny.gguf");
  writeFileSync(path, encodeGguf(tinyEncoder(2)));
  server = await startTestServer({ path, template: undefined, contextLen: encoderContextLen });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
  expect(server.bugs).toEqual([]);
});

interface OpenAiEmbeddings {
  data: { embedding: number[] }[];
  usage: { prompt_tokens: number };
}

test("embeddings: both dialects agree, many texts at once are as alone", async () => {
  const input = Array.from({ length: 100 }, (_, i) => "abc ".repeat((i % 5) + 1));
  const all = await jsonOf<OpenAiEmbeddings>(server.post("/v1/embeddings", { input }));
  const ollama = await jsonOf<{ embeddings: number[][] }>(server.post("/api/embed", { input }));
  expect(all.data.map(({ embedding }) => embedding)).toEqual(ollama.embeddings);
  const [first] = ollama.embeddings;
  expect(first!.length).toBe(encoderHiddenSize);
  expect(Math.hypot(...first!)).toBeCloseTo(1, 5);
  const alone = server.post("/api/embeddings", { prompt: input[3]! });
  expect((await jsonOf<{ embedding: number[] }>(alone)).embedding).toEqual(ollama.embeddings[98]!);
});

test("what needs a next token is a 400 that names the way", async () => {
  const messages = [{ role: "user", content: "a" }];
  const requests: [string, unknown][] = [
    ["/v1/chat/completions", { messages }],
    ["/v1/completions", { prompt: "a" }],
    ["/api/chat", { messages }],
    ["/api/generate", { prompt: "a" }],
    ["/api/generate", { prompt: "a", raw: true }],
  ];
  for (const [path, body] of requests) {
    const response = await server.post(path, body);
    const text = await response.text();
    expect({ path, status: response.status, text }).toMatchObject({ path, status: 400 });
    expect(text).toContain("'bert' models are encoders");
    expect(text).toContain("/v1/embeddings");
  }
});

test("Ollama's clients see that it embeds and nothing else", async () => {
  const shown = await jsonOf<{ capabilities: string[] }>(
    server.post("/api/show", { model: "tiny" }),
  );
  expect(shown.capabilities).toEqual(["embedding"]);
});

test("a text that is cut keeps the closing token", async () => {
  const embed = async (input: string, truncate: boolean) => {
    const reply = await server.post("/api/embed", { model: "tiny", input, truncate });
    const { embeddings } = (await reply.json()) as { embeddings: number[][] };
    return { cut: reply.headers.get("X-Tinfer-Truncated"), vector: embeddings[0]! };
  };
  const fitting = await embed("a ".repeat(encoderContextLen - 2), false);
  const cut = await embed("a ".repeat(encoderContextLen + 5), true);
  expect([fitting.cut, cut.cut]).toEqual([null, "7"]);
  expect(cut.vector).toEqual(fitting.vector);
});

test("a text longer than the table of positions is an error with the numbers", async () => {
  const response = await server.post("/v1/embeddings", { input: "a ".repeat(60) });
  expect(response.status).toBe(400);
  const text = await response.text();
  expect(text).toContain("context_length_exceeded");
  expect(text).toContain(`the prompt has 62 tokens, the context ${encoderContextLen}`);
});
