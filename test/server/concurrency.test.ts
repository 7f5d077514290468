// Many clients at once: their answers stay apart and do not depend on one another; a client that
// goes away gives its place and its KV blocks back.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { join } from "node:path";
import OpenAI from "openai";
import { Engine } from "../../src/engine/engine.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { defaultSampling } from "../../src/sampling/parameters.ts";
import { goldenFolder } from "../golden-folder.ts";
import {
  builtInModel,
  type ErrorReply,
  jsonOf,
  startTestServer,
  type TestServer,
  until,
} from "./running-server.ts";

setDefaultTimeout(60_000);

const folder = goldenFolder("server: concurrency of a larger model");
const larger = folder && join(folder, "models", "TinyStories-656K-f32.gguf");
const models = [builtInModel, ...(larger === undefined ? [] : [larger])];

const names = "Ann Bob Cid Dot Eve Fay Gus Hal Ida Jim Kit Leo Max Ned Oda Pam".split(" ");

function requestFor(name: string, index: number, sampled: boolean) {
  // Different lengths, so that prompts of some run beside answers of others.
  const start = "One day a bird sang in the old tree. ".repeat(index % 5);
  return {
    model: "tiny",
    prompt: `${start}${name} had a secret word. The word was ${name}${index}. ${name} said`,
    max_tokens: 40 + index,
    ...(sampled ? { temperature: 1.1, seed: 100 + index } : { temperature: 0 }),
  };
}

async function streamText(client: OpenAI, request: ReturnType<typeof requestFor>) {
  const stream = await client.completions.create({ ...request, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]!.text;
  return text;
}

for (const path of models) {
  for (const sampled of [false, true]) {
    const kind = `${sampled ? "sampled" : "greedy"} ${path.split("/").at(-1)}`;
    test(`16 streams at once equal 16 streams one by one: ${kind}`, async () => {
      await using server = await startTestServer({ path, maxSequences: 6 });
      const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "-", maxRetries: 0 });
      const requests = names.map((name, index) => requestFor(name, index, sampled));
      const together = await Promise.all(requests.map((request) => streamText(client, request)));
      await until(async () => (await server.metric("tinfer_running")) === 0);
      const alone: string[] = [];
      for (const request of requests) alone.push(await streamText(client, request));
      expect(together).toEqual(alone);
      expect(new Set(together).size).toBe(16);
      expect(await server.metric('tinfer_kv_blocks{state="used"')).toBe(0);
    });
  }
}

// An answer that no test outlasts: 500 tokens of this model are over in 50 ms.
const contextLen = 20_000;
const endless = { prompt: "Once upon a time", max_tokens: 19_000, ignore_eos: true };

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ maxSequences: 2, maxWaiting: 2, contextLen });
});
afterAll(() => server[Symbol.asyncDispose]());

async function isIdle(): Promise<boolean> {
  const used = await server.metric('tinfer_kv_blocks{state="used"');
  return (await server.metric("tinfer_running")) === 0 && used === 0;
}

const goodbyes: Record<string, (body: object) => Promise<void>> = {
  "aborts a stream": async (body) => {
    const controller = new AbortController();
    const { signal } = controller;
    const response = await server.post("/v1/completions", { ...body, stream: true }, { signal });
    const reader = response.body!.getReader();
    await reader.read();
    expect(await server.metric("tinfer_running")).toBe(1);
    controller.abort();
  },
  "cancels the reading": async (body) => {
    const response = await server.post("/v1/completions", { ...body, stream: true });
    const reader = response.body!.getReader();
    await reader.read();
    await reader.cancel();
  },
  "closes the socket": async (body) => {
    const socket = connect(server.port, "127.0.0.1");
    const text = JSON.stringify({ ...body, stream: true });
    socket.write(
      `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
    );
    await new Promise((resolve) => socket.once("data", resolve));
    socket.destroy();
  },
  "aborts a whole answer": async (body) => {
    const controller = new AbortController();
    const asked = server.post("/v1/completions", body, { signal: controller.signal });
    await until(async () => (await server.metric("tinfer_running")) === 1);
    controller.abort();
    expect(asked).rejects.toThrow();
  },
};

for (const [what, leave] of Object.entries(goodbyes)) {
  test(`a client that ${what} stops the work behind it`, async () => {
    await until(isIdle);
    const cancelled = await server.metric("tinfer_cancelled_total");
    const generated = await server.metric("tinfer_generated_tokens_total");
    await leave(endless);
    await until(isIdle);
    expect(await server.metric("tinfer_cancelled_total")).toBe(cancelled + 1);
    expect(await server.metric("tinfer_generated_tokens_total")).toBeLessThan(
      generated + endless.max_tokens,
    );
  });
}

test("a client that waits and goes away never runs", async () => {
  const controllers = [0, 1, 2].map(() => new AbortController());
  const asked = controllers.map(({ signal }) =>
    server.post("/v1/completions", endless, { signal }).catch(() => undefined),
  );
  await until(async () => (await server.metric("tinfer_running")) === 2);
  for (const controller of controllers.toReversed()) controller.abort();
  await Promise.all(asked);
  await until(isIdle);
  expect(await server.metric("tinfer_waiting")).toBe(0);
});

test("more than the queue holds is refused at once, in each dialect's way", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const body = { ...endless, n: 4 };
  const filling = server.post("/v1/completions", body, { signal }).catch(() => undefined);
  await until(async () => (await server.metric("tinfer_running")) === 2);
  const refused = await server.post("/v1/completions", endless);
  expect(refused.status).toBe(429);
  expect(Number(refused.headers.get("Retry-After"))).toBeGreaterThanOrEqual(1);
  expect((await jsonOf<ErrorReply>(refused)).error.code).toBe("rate_limit_exceeded");
  const ollama = await server.post("/api/generate", { prompt: "x", raw: true });
  expect(ollama.status).toBe(503);
  expect((await jsonOf<{ error: string }>(ollama)).error).toContain("busy");
  controller.abort();
  await filling;
  await until(isIdle);
  const later = await server.post("/v1/completions", { prompt: "x", max_tokens: 1 });
  expect(later.status).toBe(200);
});

test("as many wait as the queue holds, however many that is", async () => {
  await using roomy = await startTestServer({ maxSequences: 2, maxWaiting: 600 });
  const body = { prompt: "x", n: 100, max_tokens: 1, stream: true };
  const asked = Array.from({ length: 6 }, () => roomy.post("/v1/completions", body));
  for (const answer of await Promise.all(asked)) {
    expect(answer.status).toBe(200);
    expect((await answer.text()).match(/"finish_reason":"|"error"/g)).toHaveLength(100);
  }
});

test("stopping lets short answers end and cancels long ones", async () => {
  const other = await startTestServer({ maxSequences: 2, contextLen });
  const short = other.post("/v1/completions", { ...endless, max_tokens: 20 });
  const long = other.post("/v1/completions", { ...endless, n: 40 });
  await until(async () => (await other.metric("tinfer_running")) === 2);
  const start = performance.now();
  await other.stop(300);
  expect(performance.now() - start).toBeLessThan(3000);
  expect((await short).status).toBe(200);
  expect((await long).status).toBe(503);
});

test("a request that cannot get a token fails alone", async () => {
  await using engine = new Engine(builtInModel, {
    ...defaultModelOptions,
    numThreads: 1,
    maxSequences: 2,
    contextLen: 256,
  });
  const read = async (logitBias: ReadonlyMap<number, number>) => {
    const ids: number[] = [];
    const sampling = { ...defaultSampling, temperature: 0, logitBias };
    const promptTokenIds = Int32Array.of(1, 403, 407);
    const request = { promptTokenIds, maxTokens: 60, sampling, stopTokenIds: [] };
    for await (const event of engine.generate(request)) {
      if (event.kind === "token") ids.push(event.tokenId);
    }
    return ids;
  };
  const wanted = await read(new Map());
  const banned = new Map(
    Array.from({ length: engine.facts.vocabSize }, (_, id) => [id, -Infinity]),
  );
  const good = read(new Map());
  expect(read(banned)).rejects.toThrow("NaN or -infinity");
  expect(await good).toEqual(wanted);
  engine.checkIntegrity();
  expect((await engine.status()).usedKvBlocks).toBe(0);
});
