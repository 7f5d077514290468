// Wrong requests: each gets a status and a message that names what is wrong, and none of them
// takes a place, breaks the server or is quietly answered in another way.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import {
  builtInModel,
  type ErrorReply,
  jsonOf,
  launchServer,
  startTestServer,
  type TestServer,
} from "./running-server.ts";

setDefaultTimeout(60_000);

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  expect(server.bugs).toEqual([]);
});

const user = { role: "user", content: "Hi" };
const image = { type: "image_url", image_url: { url: "data:image/png;base64,AA" } };

/** Route → body and the part of the message that names the fault. */
const cases: Readonly<Record<string, readonly (readonly [object | string, string])[]>> = {
  "/v1/chat/completions": [
    ["", "empty"],
    ["{", "JSON"],
    ['"text"', "expected object"],
    [{}, "messages"],
    [{ messages: [] }, "messages"],
    [{ messages: "Hi" }, "messages"],
    [{ messages: [{ role: "wizard", content: "Hi" }] }, "messages[0].role"],
    [{ messages: [user, { role: "user", content: 5 }] }, "messages[1].content"],
    [{ messages: [{ role: "user", content: [image] }] }, "messages[0].content[0].type"],
    [{ messages: [{ role: "user", contnet: "Hi" }] }, "messages[0].content: is missing"],
    [{ messages: [user, { role: "developer", content: null }] }, "messages[1].content: is missing"],
    [{ messages: [user, { role: "assistant" }] }, "messages[1].content: is missing"],
    [{ messages: [{ role: "user", content: [] }] }, "messages[0].content"],
    [
      { messages: [{ role: "user", content: [{ type: "text" }] }] },
      "[0].content[0].text: is missing",
    ],
    [{ messages: [{ role: "tool", content: "1", tool_call_id: "a" }] }, "messages[0].role"],
    [{ messages: [{ role: "assistant", tool_calls: [{}] }] }, "messages[0].tool_calls"],
    [{ messages: [user], temperature: "hot" }, "temperature"],
    [{ messages: [user], top_p: 1.5 }, "top_p"],
    [{ messages: [user], top_k: 1.5 }, "top_k"],
    [{ messages: [user], min_p: -0.1 }, "min_p"],
    [{ messages: [user], max_tokens: 0 }, "max_tokens"],
    [{ messages: [user], max_completion_tokens: -5 }, "max_completion_tokens"],
    [{ messages: [user], seed: 1.5 }, "seed"],
    [{ messages: [user], stop: "" }, "stop"],
    [{ messages: [user], stop: [1] }, "stop[0]"],
    [{ messages: [user], stop: Array(65).fill("a") }, "<=64 items"],
    [{ messages: [user], n: 0 }, "n"],
    [{ messages: [user], n: 1000 }, "n"],
    [{ messages: [user], n: 105 }, "n: 105 answers are more than the 104 places"],
    [{ messages: [user], stream: "yes" }, "stream"],
    [{ messages: [user], logit_bias: { dog: 1 } }, "logit_bias"],
    [{ messages: [user], logit_bias: { "99999": 1 } }, "logit_bias: 99999 is no token id"],
    [{ messages: [user], logit_bias: { "5": -1e308 } }, "logit_bias"],
    [{ messages: [user], top_logprobs: 2 }, "top_logprobs"],
    [{ messages: [user], logprobs: true, top_logprobs: 21 }, "top_logprobs"],
    [{ messages: [user], tools: [{ type: "function" }] }, "tools"],
    [{ messages: [user], tool_choice: "required" }, "tool_choice"],
    [{ messages: [user], response_format: { type: "json_object" } }, "response_format"],
    [{ messages: [user], response_format: { type: "json_schema" } }, "response_format"],
    [{ messages: [user], reasoning_effort: "high" }, "reasoning_effort"],
    [{ messages: [user], store: true }, "store"],
    [{ messages: [user], context_policy: "drop_oldest" }, "context_policy"],
  ],
  "/v1/completions": [
    [{}, "prompt"],
    [{ prompt: [] }, "prompt"],
    [{ prompt: [[]] }, "prompt"],
    [{ prompt: [-1] }, "prompt[0]"],
    [{ prompt: [1.5] }, "prompt[0]: Invalid input: expected int"],
    [{ prompt: [5, "Hi"] }, "prompt[1]: Invalid input: expected number"],
    [{ prompt: [true] }, "prompt: expected a string, token ids, or an array of either"],
    [{ prompt: ["Hi", "half \ud83d"] }, "prompt[1]: the text has half"],
    [{ prompt: [512] }, "512"],
    [{ prompt: [4294967297] }, "prompt"],
    [{ prompt: "Hi", logprobs: true }, "logprobs"],
    [{ prompt: "Hi", suffix: "x" }, "suffix"],
    [{ prompt: "Hi", best_of: 3 }, "best_of"],
    [{ prompt: "Hi", echo: true, logprobs: 1 }, "echo"],
    [{ prompt: Array(200).fill("Hi") }, "n"],
  ],
  "/v1/embeddings": [
    [{}, "input"],
    [{ input: 5 }, "input"],
    [{ input: "Hi", dimensions: 65 }, "dimensions"],
    [{ input: "Hi", dimensions: 0 }, "dimensions"],
    [{ input: [] }, "input"],
    [{ input: [512] }, "512"],
    [{ input: ["Hi", 5] }, "input"],
    [{ input: "Hi", encoding_format: "int8" }, "encoding_format"],
    [{ input: "dog ".repeat(600) }, "512"],
  ],
  "/api/chat": [
    [{ messages: [{ role: "robot", content: "Hi" }] }, "messages[0].role"],
    [{ messages: [{ ...user, images: ["AA"] }] }, "messages[0].images"],
    [{ messages: [{ role: "user", contnet: "Hi" }] }, "messages[0].content: is missing"],
    [{ messages: [user], tools: [{}] }, "tools"],
    [{ messages: [user], format: "json" }, "format"],
    [{ messages: [user], think: true }, "think"],
    [{ messages: [user], keep_alive: 0 }, "keep_alive"],
    [{ messages: [user], keep_alive: "0s" }, "keep_alive"],
    [{ messages: [user], keep_alive: "soon" }, "keep_alive: expected seconds"],
    [{ messages: [user], think: "deeply" }, "think: expected true"],
    [{ messages: [user], options: { num_thread: 2 } }, "options.num_thread"],
    [{ messages: [user], options: { mirostat: 1 } }, "options.mirostat"],
    [{ messages: [user], options: { temperature: -1 } }, "options.temperature"],
    [{ messages: [user], options: { num_predict: 0 } }, "options.num_predict"],
  ],
  "/api/generate": [
    [{ prompt: 5 }, "prompt"],
    [{ prompt: "Hi", images: ["AA"] }, "images"],
    [{ prompt: "Hi", suffix: "x" }, "suffix"],
    [{ prompt: "Hi", context: [1, 2] }, "context"],
    [{ prompt: "Hi", template: "{{ .Prompt }}" }, "template"],
    [{ prompt: "Hi", raw: true, system: "Be brief" }, "system"],
  ],
  "/api/show": [[{}, "model"]],
  "/api/embed": [
    [{}, "input"],
    [{ input: 5 }, "input"],
    [{ input: "Hi", dimensions: 65 }, "dimensions"],
    [{ input: "Hi", options: { num_ctx: 1000 } }, "options.num_ctx"],
    [{ input: ["Hi", "dog ".repeat(9)], options: { num_ctx: 5 } }, "the context 5"],
  ],
  "/api/embeddings": [
    [{}, "prompt"],
    [{ prompt: "dog ".repeat(9), options: { num_ctx: 5 } }, "the context 5"],
  ],
  "/tokenize": [
    [{}, "content"],
    [{ content: "\ude00\ud83d" }, "content: the text has half"],
  ],
  "/detokenize": [
    [{}, "tokens"],
    [{ tokens: [512] }, "512"],
  ],
  "/render": [[{}, "messages"]],
};

for (const [path, bodies] of Object.entries(cases)) {
  test(`${path}: wrong bodies are 400 and name the fault`, async () => {
    for (const [body, fault] of bodies) {
      const reply = await server.post(path, body);
      const text = JSON.stringify(body).slice(0, 80);
      expect([text, reply.status]).toEqual([text, 400]);
      const { error } = await jsonOf<ErrorReply | { error: string }>(reply);
      expect([text, typeof error === "string" ? error : error.message]).toEqual([
        text,
        expect.stringContaining(fault),
      ]);
    }
    expect(await server.metric("tinfer_running")).toBe(0);
  });
}

test("unknown paths are 404, known ones with another method 405, in the dialect's shape", async () => {
  expect((await server.post("/v1/nothing", {})).status).toBe(404);
  const ollama = await server.post("/api/nothing", {});
  expect(ollama.status).toBe(404);
  expect(typeof (await jsonOf<{ error: string }>(ollama)).error).toBe("string");
  expect((await fetch(`${server.url}/v1/models/`)).status).toBe(404);
  const allowed = {
    "/tokenize": "POST",
    "/v1/models/tiny": "GET, HEAD",
    "/lora": "GET, HEAD, POST",
  };
  for (const [path, methods] of Object.entries(allowed)) {
    const refused = await fetch(server.url + path, { method: "DELETE" });
    expect([path, refused.status, refused.headers.get("Allow")]).toEqual([path, 405, methods]);
  }
  const model = await fetch(`${server.url}/v1/models/no/such`);
  expect(model.status).toBe(404);
  expect((await jsonOf<ErrorReply>(model)).error.code).toBe("model_not_found");
});

test("a compressed body is 415", async () => {
  const headers = { "Content-Encoding": "gzip" };
  const body = Bun.gzipSync(Buffer.from('{"content":"Hi"}'));
  const reply = await fetch(`${server.url}/tokenize`, { method: "POST", headers, body });
  expect(reply.status).toBe(415);
  expect((await jsonOf<ErrorReply>(reply)).error.message).toContain("gzip");
});

test("bytes that are not UTF-8 or nest too deeply do no harm", async () => {
  const bytes = Uint8Array.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]);
  const reply = await fetch(`${server.url}/v1/completions`, { method: "POST", body: bytes });
  expect(reply.status).toBe(400);
  const nested = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  const deep = `{"prompt":"\\ud83d\\ude00","max_tokens":1,"x":${nested}}`;
  expect([200, 400]).toContain((await server.post("/v1/completions", deep)).status);
});

test("harmless values of refused fields are taken", async () => {
  const body = {
    messages: [{ role: "user", content: [{ type: "text", text: "Hi" }] }],
    max_tokens: 1,
    response_format: { type: "text" },
    tools: [],
    tool_choice: "none",
    store: false,
    top_k: -1,
    n: null,
    stop: null,
    temperature: null,
  };
  expect((await server.post("/v1/chat/completions", body)).status).toBe(200);
  const ollama = { messages: [user], stream: false, keep_alive: "5m", think: false };
  const options = { num_predict: 1, mirostat: 0, num_keep: 4, oddity: 1 };
  const reply = await server.post("/api/chat", { ...ollama, options });
  expect(reply.status).toBe(200);
  expect(reply.headers.get("X-Tinfer-Ignored")).toBe("options.oddity");
});

test("unknown fields are named at any depth, each once, in a header of bounded length", async () => {
  const part = { type: "text", text: "Hi", cache_control: {} };
  const body = {
    messages: [
      { role: "user", content: [part, part], tool_call_id: "a" },
      { role: "assistant", content: "Hi", refusal: null },
    ],
    max_tokens: 1,
    stream_options: { continuous_usage_stats: true },
  };
  const ignored = async (path: string, sent: object) => {
    const reply = await server.post(path, sent);
    expect(reply.status).toBe(200);
    return reply.headers.get("X-Tinfer-Ignored")!;
  };
  expect((await ignored("/v1/chat/completions", body)).split(", ").toSorted()).toEqual([
    "messages[].content[].cache_control",
    "messages[].tool_call_id",
    "stream_options.continuous_usage_stats",
  ]);
  const named = { messages: [{ ...user, tool_name: "a" }], options: { num_predict: 1 } };
  expect(await ignored("/api/chat", named)).toBe("messages[].tool_name");
  const embedding = { input: "Hi", options: { num_ctx: 100, temperature: 1 } };
  expect(await ignored("/api/embed", embedding)).toBe("options.temperature");
  const many = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`field${i}`, i]));
  const value = await ignored("/tokenize", { content: "Hi", ...many });
  const shown = value.split(", ");
  expect(value.length).toBeLessThan(520);
  expect(shown.at(-1)).toBe(`+${201 - shown.length} more`);
});

test("an assistant's message may be reasoning alone, and any may be empty", async () => {
  const said = { role: "assistant", reasoning_content: "Hm.", content: null };
  const openai = { messages: [user, said, { ...user, content: "" }], max_tokens: 1 };
  expect((await server.post("/v1/chat/completions", openai)).status).toBe(200);
  const thought = { role: "assistant", thinking: "Hm." };
  const messages = [user, thought, { ...user, content: "" }];
  const ollama = { messages, options: { num_predict: 1 } };
  expect((await server.post("/api/chat", ollama)).status).toBe(200);
});

test("a model without a chat template completes, and says what chat needs", async () => {
  await using bare = await startTestServer({ path: builtInModel, template: undefined });
  const chat = await bare.post("/v1/chat/completions", { messages: [user] });
  expect(chat.status).toBe(400);
  expect((await jsonOf<ErrorReply>(chat)).error.message).toContain("--template");
  const ollama = await bare.post("/api/chat", { messages: [user] });
  expect(ollama.status).toBe(400);
  expect((await jsonOf<{ error: string }>(ollama)).error).toContain("--template");
  expect((await bare.post("/render", { messages: [user] })).status).toBe(400);
  const raw = { prompt: "Hi", max_tokens: 1 };
  expect((await bare.post("/v1/completions", raw)).status).toBe(200);
});

test("while the model loads, /health says 503 and the routes say when to come back", async () => {
  const loading = launchServer();
  const health = await fetch(`${loading.url}/health`);
  expect(health.status).toBe(503);
  expect(await jsonOf<object>(health)).toEqual({ status: "loading" });
  const chat = await loading.post("/v1/chat/completions", { messages: [user] });
  expect(chat.status).toBe(503);
  expect(chat.headers.get("Retry-After")).toBe("1");
  expect((await fetch(`${loading.url}/metrics`)).status).toBe(200);
  await loading.ready;
  expect((await fetch(`${loading.url}/health`)).status).toBe(200);
  await loading[Symbol.asyncDispose]();
});

test("a model that cannot be loaded fails `ready`, and /health says so", async () => {
  const failing = launchServer({ path: `${import.meta.dir}/no-such.gguf` });
  expect(failing.ready).rejects.toThrow("no-such.gguf");
  await failing.ready.catch(() => {});
  const health = await fetch(`${failing.url}/health`);
  expect(await jsonOf<object>(health)).toEqual({ status: "failed" });
  await failing[Symbol.asyncDispose]();
});
