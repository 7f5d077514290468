// `tinfer serve` as a process: the line it greets with, its flags, and how it ends.
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import OpenAI from "openai";
import { until } from "./running-server.ts";

setDefaultTimeout(60_000);

const root = join(import.meta.dir, "..", "..");

function spawnServe(args: readonly string[], environment: Record<string, string> = {}) {
  const process = Bun.spawn([globalThis.process.execPath, "src/main.ts", "serve", ...args], {
    cwd: root,
    env: { ...globalThis.process.env, TINFER_CONFIG: "", ...environment },
    stdout: "pipe",
    stderr: "pipe",
  });
  let said = "";
  const reading = (async () => {
    for await (const part of process.stderr.pipeThrough(new TextDecoderStream())) said += part;
  })();
  return {
    process,
    said: () => said,
    /** The address that the greeting names. */
    async url(): Promise<string> {
      const found = () => /ready at (http:\/\/\S+)/.exec(said)?.[1];
      await until(() => found() !== undefined || process.exitCode !== null);
      if (found() === undefined) throw new Error(`serve ended: ${said}`);
      return found()!;
    },
    async end(): Promise<number> {
      const code = await process.exited;
      await reading;
      return code;
    },
  };
}

test("serve answers a chat with the built-in model and ends in order", async () => {
  const serve = spawnServe(["--port", "0", "--threads", "1", "--alias", "mine"]);
  const client = new OpenAI({ baseURL: `${await serve.url()}/v1`, apiKey: "-" });
  const stream = await client.chat.completions.create({
    model: "mine",
    messages: [{ role: "user", content: "Once upon a time" }],
    max_tokens: 8,
    stream: true,
  });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  expect(text.length).toBeGreaterThan(5);
  expect((await client.models.retrieve("stories260K")).id).toBe("mine");
  serve.process.kill("SIGTERM");
  expect(await serve.end()).toBe(0);
  const records = serve
    .said()
    .split("\n")
    .filter((line) => line.startsWith("{"));
  expect(records.map((line) => JSON.parse(line).path)).toContain("/v1/chat/completions");
});

test("Ctrl-C under load cancels what runs and exits with 130 within seconds", async () => {
  const serve = spawnServe(["--port", "0", "--threads", "1", "--parallel", "2"]);
  const body = { prompt: "Once", ignore_eos: true, n: 64 };
  const init = { method: "POST", body: JSON.stringify(body) };
  const asked = fetch(`${await serve.url()}/v1/completions`, init);
  await Bun.sleep(100);
  const start = performance.now();
  serve.process.kill("SIGINT");
  expect(await serve.end()).toBe(130);
  expect(performance.now() - start).toBeLessThan(6000);
  expect([200, 503]).toContain((await asked).status);
});

test("wrong command lines are refused with exit code 2 and the way out", async () => {
  const wrong: Record<string, readonly string[]> = {
    "--api-key": ["--host", "0.0.0.0"],
    contradicts: ["--no-auth", "--api-key", "x"],
    "--port": ["--port", "70000"],
    "--parallel": ["--parallel", "0"],
    "--temperature must be": ["--temperature", "500"],
    "--logit-bias names": ["--port", "0", "--logit-bias", "99999=1"],
    "--max-tokens": ["--max-tokens", "0"],
    "did you mean --host": ["--hots", "x"],
  };
  for (const [hint, args] of Object.entries(wrong)) {
    const serve = spawnServe(args);
    expect([args, await serve.end()]).toEqual([args, 2]);
    expect(serve.said()).toContain(hint);
  }
  const two = spawnServe(["a.gguf", "b.gguf"]);
  expect(await two.end()).toBe(1);
  expect(two.said()).toContain("one MODEL");
});

test("a port that is taken is named", async () => {
  using taken = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("") });
  const serve = spawnServe(["--port", String(taken.port)]);
  expect(await serve.end()).toBe(2);
  expect(serve.said()).toContain(`port ${taken.port}`);
  expect(serve.said()).toContain("--port");
});

test("an API key may come from the environment", async () => {
  const key = { TINFER_API_KEY: "from-environment" };
  const serve = spawnServe(["--port", "0", "--host", "0.0.0.0"], key);
  const url = (await serve.url()).replace("0.0.0.0", "127.0.0.1");
  expect((await fetch(`${url}/v1/models`)).status).toBe(401);
  const headers = { Authorization: "Bearer from-environment" };
  expect((await fetch(`${url}/v1/models`, { headers })).status).toBe(200);
  serve.process.kill("SIGTERM");
  expect(await serve.end()).toBe(0);
  expect(serve.said()).not.toContain("from-environment");
});
