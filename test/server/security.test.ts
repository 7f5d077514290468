// Who may ask: API keys, the Host and Origin headers, the size of bodies, what the log keeps.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { request } from "node:http";
import { type ErrorReply, jsonOf, startTestServer, type TestServer } from "./running-server.ts";

setDefaultTimeout(60_000);

let open: TestServer;
let keyed: TestServer;
const keys = ["first-secret-key", "second"];

beforeAll(async () => {
  open = await startTestServer({ maxBodyBytes: 5000, corsOrigins: ["https://app.example"] });
  keyed = await startTestServer({ apiKeys: keys, logPrompts: true });
});
afterAll(async () => {
  await open[Symbol.asyncDispose]();
  await keyed[Symbol.asyncDispose]();
});

const guarded = [
  "/v1/models",
  "/v1/models/tiny",
  "/api/tags",
  "/api/ps",
  "/api/version",
  "/metrics",
];

test("with keys, every route but the page and /health wants one", async () => {
  for (const path of guarded) {
    const reply = await fetch(keyed.url + path);
    expect([path, reply.status]).toEqual([path, 401]);
    expect(reply.headers.get("WWW-Authenticate")).toBe("Bearer");
  }
  for (const path of ["/v1/chat/completions", "/api/chat", "/tokenize", "/render", "/nowhere"]) {
    expect([path, (await keyed.post(path, {})).status]).toEqual([path, 401]);
  }
  for (const path of ["/", "/health", "/api/health"]) {
    expect((await fetch(keyed.url + path)).status).toBe(200);
  }
});

test("a key is taken in both headers; anything else is not a key", async () => {
  const status = async (headers: Record<string, string>) =>
    (await fetch(`${keyed.url}/v1/models`, { headers })).status;
  for (const key of keys) {
    expect(await status({ Authorization: `Bearer ${key}` })).toBe(200);
    expect(await status({ Authorization: `bearer  ${key}` })).toBe(200);
    expect(await status({ "x-api-key": key })).toBe(200);
  }
  const wrong = ["", "first", "first-secret-keys", "first-secret-ke", "Second", keys.join(" ")];
  for (const key of wrong) {
    expect(await status({ Authorization: `Bearer ${key}` })).toBe(401);
    expect(await status({ "x-api-key": key })).toBe(401);
  }
  expect(await status({ Authorization: `Basic ${btoa("u:second")}` })).toBe(401);
  expect(await status({ Authorization: "second" })).toBe(401);
  expect((await fetch(`${keyed.url}/v1/models?api_key=second`)).status).toBe(401);
});

/** fetch() sets Host itself; this does not. */
function statusWithHost(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request(`${open.url}/v1/models`, { headers: { Host: host } }, (reply) => {
      reply.resume();
      resolve(reply.statusCode!);
    });
    asked.on("error", reject);
    asked.end();
  });
}

test("on loopback only loopback names are answered", async () => {
  const { port } = open;
  for (const host of ["localhost", `LOCALHOST:${port}`, "127.0.0.1:9", "[::1]:80", "127.8.8.8"]) {
    expect([host, await statusWithHost(host)]).toEqual([host, 200]);
  }
  const foreign = ["evil.example", `evil.example:${port}`, "127.0.0.1.evil.example", "localhost."];
  for (const host of [...foreign, "192.168.1.5", "localhost@evil.example"]) {
    expect([host, await statusWithHost(host)]).not.toEqual([host, 200]);
  }
});

test("pages of other origins are refused unless allowed; allowed ones get CORS headers", async () => {
  const ask = (origin: string, method = "GET") =>
    fetch(`${open.url}/v1/models`, { method, headers: { Origin: origin } });
  const same = await ask(open.url);
  expect(same.status).toBe(200);
  expect(same.headers.get("Access-Control-Allow-Origin")).toBeNull();
  for (const origin of [
    "https://evil.example",
    "null",
    "http://localhost:1",
    "https://app.example.evil",
  ]) {
    const refused = await ask(origin);
    expect([origin, refused.status]).toEqual([origin, 403]);
    expect(refused.headers.get("Access-Control-Allow-Origin")).toBeNull();
    expect((await ask(origin, "OPTIONS")).status).toBe(403);
  }
  const allowed = await ask("https://app.example");
  expect(allowed.headers.get("Access-Control-Allow-Origin")).toBe("https://app.example");
  expect(allowed.headers.get("Vary")).toBe("Origin");
  const preflight = await ask("https://app.example", "OPTIONS");
  expect(preflight.status).toBe(204);
  expect(preflight.headers.get("Access-Control-Allow-Headers")).toContain("Authorization");
});

test("a body over the limit is 413, announced or not", async () => {
  const large = JSON.stringify({ prompt: "x".repeat(6000) });
  for (const path of ["/v1/completions", "/api/generate", "/tokenize", "/v1/embeddings"]) {
    expect([path, (await open.post(path, large)).status]).toEqual([path, 413]);
  }
  const pieces = async function* () {
    for (let i = 0; i < 100; i++) yield new TextEncoder().encode("x".repeat(1000));
  };
  const body = new ReadableStream({
    async start(controller) {
      for await (const piece of pieces()) controller.enqueue(piece);
      controller.close();
    },
  });
  const chunked = await fetch(`${open.url}/v1/completions`, { method: "POST", body });
  expect(chunked.status).toBe(413);
  expect((await jsonOf<ErrorReply>(chunked)).error.message).toContain("5000");
  const huge = await open.post("/v1/completions", "x".repeat(4_000_000));
  expect(huge.status).toBe(413);
  expect((await jsonOf<ErrorReply>(huge)).error.message).toContain("5000");
  const id = huge.headers.get("X-Request-Id")!;
  expect(open.records.find((record) => record.id === id)).toMatchObject({ status: 413 });
  expect((await open.post("/v1/completions", { prompt: "Hi", max_tokens: 1 })).status).toBe(200);
});

test("the log has no prompt, no answer and no key, unless prompts are asked for", async () => {
  const secret = "Zanzibar";
  const body = { messages: [{ role: "user", content: secret }], max_tokens: 3, temperature: 0 };
  await open.post("/v1/chat/completions", body);
  await open.post("/v1/chat/completions", { ...body, model: "unknown" });
  const record = open.records.at(-2)!;
  expect(record).toMatchObject({ method: "POST", path: "/v1/chat/completions", status: 200 });
  expect(record.completionTokens).toBe(3);
  expect(JSON.stringify(open.records)).not.toContain(secret);
  const headers = { "x-api-key": keys[0]! };
  await keyed.post("/v1/chat/completions", body, { headers });
  expect(keyed.records.at(-1)!.prompts![0]).toContain(secret);
  expect(JSON.stringify(keyed.records)).not.toContain(keys[0]!);
});
