// Adapters in a server: listed as models, chosen by name, and their scales by /lora.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAdapters } from "../../src/engine/adapter-choice.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { Random } from "../kernel/random.ts";
import { tinyAdapter } from "../kernel/tiny-adapter.ts";
import {
  builtInModel,
  type ErrorReply,
  jsonOf,
  startTestServer,
  type TestServer,
} from "./running-server.ts";

let folder = "";
let server: TestServer;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-lora-"));
  const { metadata, tensors } = readGguf(builtInModel);
  expect(metadata.get("general.architecture")).toBe("llama");
  const content = new Uint8Array();
  const shapes = [...tensors].map(([name, { shape }]) => {
    return { name, shape, type: "f32" as const, content };
  });
  const files = ["style", "tone"].map((name) => {
    const wants = (tensor: string) => tensor.includes(name === "style" ? "ffn_down" : "attn_q");
    const path = join(folder, `${name}.gguf`);
    const model = { metadata: [], tensors: shapes };
    writeGguf(path, tinyAdapter(model, new Random(name), { alpha: 8, wants }).content);
    return path;
  });
  server = await startTestServer({ adapters: parseAdapters([files[0]!, `${files[1]}=0.5`]) });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const prompt = "Once upon a time, there was a little girl named Lily who loved to play. ".repeat(3);

async function complete(model: string | undefined): Promise<string> {
  const wish = model === undefined ? {} : { model };
  const body = { ...wish, prompt, max_tokens: 24, temperature: 0 };
  const reply = await server.post("/v1/completions", body);
  expect(reply.status).toBe(200);
  const { choices, model: name } = await jsonOf<{ choices: { text: string }[]; model: string }>(
    reply,
  );
  if (model?.includes(":")) expect(name).toBe(model);
  return choices[0]!.text;
}

interface Listed {
  readonly adapters: { id: number; name: string; model: string; scale: number }[];
}
const setScales = (body: unknown) => server.post("/lora", body);
const scales = async () => {
  const { adapters } = await jsonOf<Listed>(fetch(`${server.url}/lora`));
  return adapters.map(({ name, scale }) => [name, scale]);
};

test("listed as models", async () => {
  const { data } = await jsonOf<{ data: { id: string; parent?: string }[] }>(
    fetch(`${server.url}/v1/models`),
  );
  expect(data.map(({ id, parent }) => [id, parent])).toEqual([
    ["tiny", undefined],
    ["tiny:style", "tiny"],
    ["tiny:tone", "tiny"],
  ]);
  const { models } = await jsonOf<{ models: { name: string }[] }>(fetch(`${server.url}/api/tags`));
  expect(models.map(({ name }) => name)).toEqual(["tiny", "tiny:style", "tiny:tone"]);
  const one = await jsonOf<{ id: string }>(fetch(`${server.url}/v1/models/style`));
  expect(one.id).toBe("tiny:style");
  expect((await server.post("/v1/completions", { model: "tiny:none", prompt })).status).toBe(404);
});

test("scales fit into 32 bits, and embeddings that are not numbers are an error", async () => {
  const tooLarge = await setScales([{ id: 0, scale: 1e39 }]);
  expect(tooLarge.status).toBe(400);
  expect((await jsonOf<ErrorReply>(tooLarge)).error.message).toContain("adapters[0].scale");
  expect((await setScales([{ id: 0, scale: 3e38 }])).status).toBe(200);
  for (const path of ["/v1/embeddings", "/api/embed"]) {
    expect((await server.post(path, { input: "a red ball" })).status).toBe(500);
  }
  expect((await setScales([{ id: 0, scale: 1 }])).status).toBe(200);
});

test("chosen by name, without effect on others in the batch or the cache", async () => {
  await using plain = await startTestServer();
  const body = { prompt, max_tokens: 24, temperature: 0 };
  const reply = await plain.post("/v1/completions", body);
  const { choices } = await jsonOf<{ choices: { text: string }[] }>(reply);
  const alone = choices[0]!.text;
  const names = ["tiny", "tiny:style", "tiny:tone", "tone", undefined, "tiny"];
  const first = await Promise.all(names.map(complete));
  const [base, style, tone, sameTone, both, again] = first;
  expect([base, again]).toEqual([alone, alone]);
  expect(sameTone).toBe(tone!);
  expect(new Set([base, style, tone, both]).size).toBe(4);
  // One after another, from the prefix cache.
  for (const [index, name] of names.entries()) expect(await complete(name)).toBe(first[index]!);
});

test("embeddings take the model's adapter too", async () => {
  const embed = async (model: string) => {
    const reply = server.post("/v1/embeddings", { model, input: "a red ball" });
    return (await jsonOf<{ data: { embedding: number[] }[] }>(reply)).data[0]!.embedding;
  };
  const base = await embed("tiny");
  expect(await embed("tiny:style")).not.toEqual(base);
  expect(await embed("tiny")).toEqual(base);
});

describe("/lora", () => {
  test("sets scales by name or number; others stay", async () => {
    const before = await scales();
    expect(before).toEqual([
      ["style", 1],
      ["tone", 0.5],
    ]);
    const both = await complete(undefined);
    const changed = await setScales({ adapters: [{ name: "style", scale: 0 }] });
    expect((await jsonOf<Listed>(changed)).adapters.map(({ scale }) => scale)).toEqual([0, 0.5]);
    expect(await complete(undefined)).toBe(await complete("tiny:tone"));
    expect((await setScales([{ id: 1, scale: 0 }])).status).toBe(200);
    expect(await complete(undefined)).toBe(await complete("tiny"));
    await setScales([
      { id: 0, scale: 1 },
      { name: "tone", scale: 0.5 },
    ]);
    expect(await scales()).toEqual(before);
    expect(await complete(undefined)).toBe(both);
  });

  test("refuses what is not there", async () => {
    const cases = [
      [[{ name: "other", scale: 1 }], /no adapter 'other'/],
      [[{ id: 2, scale: 1 }], /no adapter number 2/],
      [[{ id: 0, name: "tone", scale: 1 }], /no adapter 'tone'/],
      [[{ scale: 1 }], /no adapter number/],
      [{ adapters: [{ name: "style" }] }, /scale/],
      [{ scales: [] }, /adapters/],
    ] as const;
    const before = await scales();
    for (const [body, message] of cases) {
      const reply = await setScales(body);
      expect(reply.status).toBe(400);
      expect((await jsonOf<ErrorReply>(reply)).error.message).toMatch(message);
    }
    expect(await scales()).toEqual(before);
  });
});
