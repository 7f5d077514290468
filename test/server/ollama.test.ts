// Ollama's own client against the server.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { Ollama } from "ollama";
import { measureModel } from "../../src/cli/plan.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import {
  builtInModel,
  type ChatReply,
  jsonOf,
  startTestServer,
  type TestServer,
  type TokensReply,
} from "./running-server.ts";

setDefaultTimeout(60_000);

let server: TestServer;
let client: Ollama;
const prompt = "Once upon a time";
const messages = [{ role: "user", content: prompt }];
const options = { temperature: 0, num_predict: 24 };

beforeAll(async () => {
  server = await startTestServer();
  client = new Ollama({ host: server.url });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  expect(server.bugs).toEqual([]);
});

test("a chat streams lines that add up to the whole answer", async () => {
  const stream = await client.chat({ model: "tiny", messages, stream: true, options });
  let text = "";
  let lines = 0;
  let last: { done: boolean; eval_count?: number; done_reason?: string } | undefined;
  for await (const part of stream) {
    text += part.message.content;
    lines++;
    last = part;
  }
  expect(lines).toBeGreaterThan(10);
  expect(last!.done).toBe(true);
  expect(last!.done_reason).toBe("length");
  expect(last!.eval_count).toBe(24);
  const whole = await client.chat({ model: "tiny:latest", messages, options });
  expect(whole.message).toEqual({ role: "assistant", content: text });
  expect(whole.prompt_eval_count).toBeGreaterThan(3);
  expect(whole.total_duration).toBeGreaterThan(0);
});

test("both dialects give the same text", async () => {
  const { response } = await client.generate({ model: "tiny", prompt, options });
  const body = { messages, temperature: 0, max_tokens: 24 };
  const { choices } = await jsonOf<ChatReply>(server.post("/v1/chat/completions", body));
  expect(response).toBe(choices[0]!.message.content);
});

test("generate streams by default, with raw and with stop", async () => {
  const reply = await server.post("/api/generate", { model: "tiny", prompt, options, raw: true });
  expect(reply.headers.get("Content-Type")).toBe("application/x-ndjson");
  const lines = (await reply.text()).trim().split("\n");
  const text = lines.map((line) => JSON.parse(line).response).join("");
  const stop = [text.slice(10, 14)];
  const stopped = await client.generate({
    model: "tiny",
    prompt,
    raw: true,
    options: { ...options, stop },
  });
  expect(stopped.response).toBe(text.slice(0, text.indexOf(stop[0]!)));
  expect(stopped.done_reason).toBe("stop");
});

test("options reach the sampler", async () => {
  const ask = async (changes: object): Promise<string> => {
    const given = { ...options, temperature: 1.3, seed: 4, ...changes };
    return (await client.generate({ model: "tiny", prompt, options: given })).response ?? "";
  };
  const sampled = await ask({});
  expect(await ask({})).toBe(sampled);
  expect(await ask({ seed: 5 })).not.toBe(sampled);
  const best = await ask({ temperature: 0 });
  expect(await ask({ top_k: 1 })).toBe(best);
  expect(await ask({ top_p: 0 })).toBe(best);
  expect(await ask({ min_p: 1 })).toBe(best);
  expect(await ask({ temperature: 0, repeat_penalty: 5 })).not.toBe(best);
  expect((await ask({ num_predict: 2 })).length).toBeLessThan(best.length);
});

test("num_ctx bounds prompt and answer", async () => {
  const given = { ...options, num_predict: -1, num_ctx: 16 };
  const answer = await client.generate({ model: "tiny", prompt, options: given });
  expect(answer.prompt_eval_count + answer.eval_count).toBe(16);
  expect(answer.done_reason).toBe("length");
  const small = client.generate({ model: "tiny", prompt, options: { num_ctx: 3 } });
  expect(small).rejects.toThrow("context 3");
  const large = client.generate({ model: "tiny", prompt, options: { num_ctx: 1e6 } });
  expect(large).rejects.toThrow("--ctx");
});

test("an empty request says that the model is loaded", async () => {
  const answer = await client.generate({ model: "tiny", prompt: "" });
  expect(answer.done_reason).toBe("load");
  const chat = await jsonOf<{ done_reason: string }>(server.post("/api/chat", { model: "tiny" }));
  expect(chat.done_reason).toBe("load");
});

test("models: list, show, ps, version", async () => {
  const { models } = await client.list();
  expect(models.map(({ name }) => name)).toEqual(["tiny"]);
  expect(models[0]!.digest).toMatch(/^[0-9a-f]{64}$/);
  expect(models[0]!.size).toBe(1185376);
  const shown = await client.show({ model: "tiny" });
  expect(shown.details.family).toBe("llama");
  expect(shown.capabilities).toContain("completion");
  const info = shown.model_info as unknown as Record<string, unknown>;
  expect(info["general.architecture"]).toBe("llama");
  expect(info["tokenizer.ggml.tokens"]).toBeNull();
  const verbose = await jsonOf<{ model_info: Record<string, unknown[]> }>(
    server.post("/api/show", { model: "tiny", verbose: true }),
  );
  expect(verbose.model_info["tokenizer.ggml.tokens"]!.length).toBe(512);
  expect((await client.ps()).models[0]!.name).toBe("tiny");
  expect((await client.version()).version).toBe("1.2.3");
});

test("embed: one vector per text; the older form agrees", async () => {
  const input = ["The dog ran.", "A cat slept."];
  const { embeddings } = await client.embed({ model: "tiny", input });
  expect(embeddings.length).toBe(2);
  expect(Math.hypot(...embeddings[0]!)).toBeCloseTo(1, 5);
  const older = await client.embeddings({ model: "tiny", prompt: input[1]! });
  expect(older.embedding).toEqual(embeddings[1]!);
});

test("embed: no text is no vector, and fewer dimensions are the first ones", async () => {
  for (const input of ["", []]) {
    expect((await client.embed({ model: "tiny", input })).embeddings).toEqual([]);
  }
  const input = ["The dog ran."];
  const { embeddings } = await client.embed({ model: "tiny", input });
  const cut = await client.embed({ model: "tiny", input, dimensions: 8 });
  const length = Math.hypot(...embeddings[0]!.slice(0, 8));
  expect(cut.embeddings[0]!.map((value) => value * length)).toEqual(
    embeddings[0]!.slice(0, 8).map((value) => expect.closeTo(value, 5)),
  );
});

test("ps counts what embeddings take, and plan says it before", async () => {
  await using other = await startTestServer({ maxSequences: 2, contextLen: 256 });
  const size = async () => {
    const reply = await fetch(`${other.url}/api/ps`);
    return ((await reply.json()) as { models: [{ size: number }] }).models[0].size;
  };
  const { devices, embeddings } = measureModel(builtInModel, {
    ...{ ...defaultModelOptions, numThreads: 1, maxSequences: 2, contextLen: 256 },
    ...{ kvTypeK: "f16", kvTypeV: "f16" },
  });
  expect(await size()).toBe(devices[0]!.total);
  await other.post("/api/embed", { model: "tiny", input: "The dog ran." });
  expect(await size()).toBe(devices[0]!.total + embeddings);
  expect(embeddings).toBeGreaterThan(0);
});

async function embeddingsOf(response: Response): Promise<number[][]> {
  return ((await response.json()) as { embeddings: number[][] }).embeddings;
}

test("embed cuts a long text only when told to, and says how much", async () => {
  const input = "dog ".repeat(900);
  expect(client.embed({ model: "tiny", input })).rejects.toThrow("tokens, the context 512");
  const cut = await server.post("/api/embed", { model: "tiny", input, truncate: true });
  expect(cut.status).toBe(200);
  const counted = server.post("/tokenize", { content: input, add_special: true });
  const { count } = await jsonOf<TokensReply>(counted);
  expect(cut.headers.get("X-Tinfer-Truncated")).toBe(String(count - 512));
  // Of a text that is far too long only the beginning is read: the vector is the same.
  const longer = { model: "tiny", input: input.repeat(10), truncate: true };
  const start = await server.post("/api/embed", longer);
  expect(Number(start.headers.get("X-Tinfer-Truncated"))).toBeWithin(16_384 - 512, 16_400 - 512);
  expect(await embeddingsOf(start)).toEqual(await embeddingsOf(cut));
});

test("errors have Ollama's shape", async () => {
  const response = await server.post("/api/chat", { model: "none", messages });
  expect(response.status).toBe(404);
  const body = await jsonOf<{ error: string }>(response);
  expect(Object.keys(body)).toEqual(["error"]);
  expect(body.error).toContain("tiny");
  expect(client.chat({ model: "none", messages })).rejects.toThrow("tiny");
});
