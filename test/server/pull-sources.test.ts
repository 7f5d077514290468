// Which files a reference means at its source, and under which name they are kept.
import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import { locateModel } from "../../src/store/locate.ts";
import { type PullOptions, pullModel } from "../../src/store/pull.ts";
import { ModelStore } from "../../src/store/store.ts";
import { FaultServer, randomModel, sha256 } from "../fault-server.ts";

const folders: string[] = [];

function newStore(): ModelStore {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-pull-"));
  folders.push(folder);
  return new ModelStore(folder);
}

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function options(server: FaultServer): PullOptions {
  return { endpoint: server.origin, env: {}, retry: { firstDelayMs: 2 } };
}

async function failureOf(pulling: Promise<unknown>): Promise<TinferError> {
  const error = await pulling.catch((thrown: unknown) => thrown);
  if (!(error instanceof TinferError)) throw new Error(`expected a TinferError, got ${error}`);
  return error;
}

const repository = {
  "README.md": new TextEncoder().encode("# a model"),
  "tiny-Q2_K.gguf": randomModel(1001),
  "tiny-Q4_K_M.gguf": randomModel(1002),
  "tiny-Q8_0.gguf": randomModel(1003),
  "mmproj-tiny-Q4_K_M.gguf": randomModel(1004),
  "F16/tiny-00001-of-00003.gguf": randomModel(1005),
  "F16/tiny-00002-of-00003.gguf": randomModel(1006),
  "F16/tiny-00003-of-00003.gguf": randomModel(1007),
};

test("without a quantisation Q4_K_M is chosen and the others are named", async () => {
  await using server = await FaultServer.start(repository);
  const store = newStore();
  const notes: string[] = [];
  const model = await pullModel(store, "hf:someone/tiny-GGUF", {
    ...options(server),
    onProgress: ({ note }) => note !== undefined && notes.push(note),
  });
  expect(model.name).toBe("someone/tiny-GGUF");
  expect(model.tag).toBe("Q4_K_M");
  expect(model.bytes).toBe(1002);
  expect(model.source).toBe("hf:someone/tiny-GGUF:Q4_K_M");
  expect(notes[0]).toContain("Q2_K");
  expect(notes[0]).toContain("F16");
  const again = await pullModel(store, "hf.co/someone/tiny-GGUF:q4_k_m", options(server));
  expect(again.sha256).toBe(model.sha256);
  expect(server.transfers).toHaveLength(1);
  for (const text of ["hf:someone/tiny-GGUF", "tiny-GGUF", "someone/tiny-GGUF:Q4_K_M"]) {
    expect(locateModel(text, store)).toBe(model.paths[0]!);
  }
});

test("all shards of a split file, with their names", async () => {
  await using server = await FaultServer.start(repository, { cuts: [500, 800] });
  const store = newStore();
  const model = await pullModel(store, "hf:someone/tiny:F16", options(server));
  expect(model.paths.map((path) => basename(path))).toEqual([
    "tiny-00001-of-00003.gguf",
    "tiny-00002-of-00003.gguf",
    "tiny-00003-of-00003.gguf",
  ]);
  expect(new Set(model.paths.map((path) => dirname(path))).size).toBe(1);
  expect(model.bytes).toBe(1005 + 1006 + 1007);
  for (const path of model.paths) {
    const expected = repository[`F16/${basename(path)}` as keyof typeof repository];
    expect(sha256(readFileSync(path))).toBe(sha256(expected));
  }
  expect(locateModel("hf:someone/tiny:F16", store)).toBe(model.paths[0]!);
  expect(store.remove("tiny:F16").freedBytes).toBe(model.bytes);
  expect(existsSync(model.paths[0]!)).toBe(false);
});

test("a shard's address brings its siblings", async () => {
  await using server = await FaultServer.start(repository);
  const address = `${server.origin}/F16/tiny-00001-of-00003.gguf`;
  const model = await pullModel(newStore(), address, options(server));
  expect(model.paths).toHaveLength(3);
  expect(model.name).toBe("tiny");
});

test("a file by its path", async () => {
  await using server = await FaultServer.start({
    ...repository,
    "sub dir/a+b.gguf": randomModel(77),
  });
  const store = newStore();
  const model = await pullModel(store, "hf:someone/tiny/sub dir/a+b.gguf", options(server));
  expect(model.bytes).toBe(77);
  expect(model.tag).toBe("sub-dir-a-b");
  const projector = "hf:someone/tiny/mmproj-tiny-Q4_K_M.gguf";
  expect((await pullModel(store, projector, options(server))).bytes).toBe(1004);
});

test("an unknown quantisation or file lists what is there", async () => {
  await using server = await FaultServer.start(repository);
  const error = await failureOf(pullModel(newStore(), "hf:someone/tiny:Q5_K_M", options(server)));
  expect(error.code).toBe("notFound");
  expect(error.message).toContain("Q2_K, Q4_K_M, Q8_0, F16");
  expect(error.hint).toContain("hf:someone/tiny:Q4_K_M");
  const file = await failureOf(pullModel(newStore(), "hf:someone/tiny/x.gguf", options(server)));
  expect(file.code).toBe("notFound");
  expect(file.message).toContain("Q8_0");
});

test("two files for one quantisation, missing shards, no models", async () => {
  await using server = await FaultServer.start({
    "a-Q4_0.gguf": randomModel(10),
    "b-Q4_0.gguf": randomModel(11),
    "c-Q8_0-00001-of-00002.gguf": randomModel(12),
  });
  const both = await failureOf(pullModel(newStore(), "hf:someone/two", options(server)));
  expect(both.message).toContain("a-Q4_0.gguf, b-Q4_0.gguf");
  const half = await failureOf(pullModel(newStore(), "hf:someone/two:Q8_0", options(server)));
  expect(half.message).toContain("1 of 2 parts");
  server.files.clear();
  server.files.set("model.safetensors", randomModel(5));
  const none = await failureOf(pullModel(newStore(), "hf:someone/two", options(server)));
  expect(none.code).toBe("unsupported");
  expect(none.message).toContain("safetensors");
});

test("a file with a published hash need not look like GGUF, but it is said", async () => {
  const content = crypto.getRandomValues(new Uint8Array(5000)).fill(1, 0, 4);
  await using server = await FaultServer.start({ "model-Q8_0.gguf": content });
  const notes: string[] = [];
  const model = await pullModel(newStore(), "hf:someone/odd", {
    ...options(server),
    onProgress: ({ note }) => note !== undefined && notes.push(note),
  });
  expect(model.sha256).toBe(sha256(content));
  expect(notes.at(-1)).toContain("not a GGUF file");
});

test("HF_ENDPOINT names the host", async () => {
  await using server = await FaultServer.start(repository);
  const env = { HF_ENDPOINT: `${server.origin}/` };
  expect((await pullModel(newStore(), "hf:someone/tiny:Q2_K", { env })).bytes).toBe(1001);
  const elsewhere = pullModel(newStore(), "hf:a/b", { env: { HF_ENDPOINT: "http://192.0.2.1" } });
  expect((await failureOf(elsewhere)).code).toBe("usage");
});

test("the weights of an Ollama model", async () => {
  const content = randomModel(70_000);
  await using server = await FaultServer.start({ weights: content }, { cuts: [1234, 44_444] });
  const store = newStore();
  const token = { env: { HF_TOKEN: "secret-token" } };
  const model = await pullModel(store, "ollama:tiny:1b", { ...options(server), ...token });
  expect(model.sha256).toBe(sha256(content));
  expect(model.name).toBe("tiny");
  expect(locateModel("tiny:1b", store)).toEndWith("tiny-1b.gguf");
  expect(locateModel("ollama:tiny:1b", store)).toBe(model.paths[0]!);
  for (const { headers } of server.log) expect(headers["authorization"]).toBeUndefined();
});

test("a path and an unknown name are no sources", async () => {
  expect((await failureOf(pullModel(newStore(), "./m.gguf"))).code).toBe("usage");
  const unknown = await failureOf(pullModel(newStore(), "llama"));
  expect(unknown.code).toBe("notFound");
  expect(unknown.hint).toContain("hf:user/repo");
});
