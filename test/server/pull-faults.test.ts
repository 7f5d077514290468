// What a pull refuses, restarts or explains: wrong bytes, changed files, full disks, closed doors.
import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import { realDisk } from "../../src/store/partial-file.ts";
import { type PullOptions, type PullProgress, pullModel } from "../../src/store/pull.ts";
import { ModelStore } from "../../src/store/store.ts";
import { encodeGguf } from "../../src/weights/gguf-writer.ts";
import { FaultServer, randomModel, sha256 } from "../fault-server.ts";

const folders: string[] = [];
const retry = { firstDelayMs: 2, stallMs: 5_000 };
const reference = "hf:someone/model:Q4_K_M";

function newStore(): ModelStore {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-pull-"));
  folders.push(folder);
  return new ModelStore(folder);
}

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

async function failureOf(pulling: Promise<unknown>): Promise<TinferError> {
  const error = await pulling.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(TinferError);
  if (!(error instanceof TinferError)) throw error;
  return error;
}

/** Pulls and collects the events; `server` is the endpoint. */
async function pullFrom(
  server: FaultServer,
  store: ModelStore,
  text = reference,
  options: PullOptions = {},
) {
  const events: PullProgress[] = [];
  const onProgress = (event: PullProgress) => events.push(event);
  const model = await pullModel(store, text, {
    endpoint: server.origin,
    retry,
    onProgress,
    env: {},
    ...options,
  });
  return { model, events };
}

/** Stops a pull after its first cut, as a person would who loses patience. */
async function stopAtFirstCut(server: FaultServer, store: ModelStore): Promise<void> {
  const stop = new AbortController();
  const onProgress = ({ note }: PullProgress) => {
    if (note?.includes("trying again")) stop.abort();
  };
  const stopped = pullFrom(server, store, reference, { signal: stop.signal, onProgress });
  expect((await failureOf(stopped)).code).toBe("cancelled");
}

test("a wrong byte: both hashes are named and nothing is kept", async () => {
  const content = randomModel(300_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { corruptAt: 99_999 },
  );
  const store = newStore();
  const wrong = Uint8Array.from(content);
  wrong[99_999] = wrong[99_999]! ^ 0xff;
  const error = await failureOf(pullFrom(server, store));
  expect(error.code).toBe("checksum");
  expect(error.message).toContain(sha256(content));
  expect(error.message).toContain(sha256(wrong));
  expect(readdirSync(join(store.folder, "partial"))).toEqual([]);
  expect(existsSync(join(store.folder, "blobs"))).toBe(false);
  expect(store.list()).toEqual([]);
  server.faults.corruptAt = undefined;
  expect((await pullFrom(server, store)).model.sha256).toBe(sha256(content));
});

test("a wrong byte in the part that an earlier pull left", async () => {
  const content = randomModel(300_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { cuts: [150_000], corruptAt: 10 },
  );
  const store = newStore();
  await stopAtFirstCut(server, store);
  server.faults.corruptAt = undefined;
  const error = await failureOf(pullFrom(server, store));
  expect(error.code).toBe("checksum");
  expect((await pullFrom(server, store)).model.sha256).toBe(sha256(content));
});

test("another length than published", async () => {
  const content = randomModel(200_000);
  await using server = await FaultServer.start({ "model-Q4_K_M.gguf": content });
  const store = newStore();
  const lying: typeof fetch = Object.assign(
    async (input: string | URL | Request, init?: RequestInit) => {
      const response = await fetch(input, init);
      if (!String(input).includes("/tree/")) return response;
      const text = (await response.text()).replaceAll('"size":200000', '"size":200001');
      return new Response(text);
    },
    { preconnect: fetch.preconnect },
  );
  const error = await failureOf(pullFrom(server, store, reference, { fetch: lying }));
  expect(error.code).toBe("checksum");
  expect(error.message).toContain("200000");
  expect(error.message).toContain("200001");
});

test("a server that ignores ranges: started again, and said so", async () => {
  const content = randomModel(400_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { cuts: [100_000, 200_000], ignoreRange: true },
  );
  const { model, events } = await pullFrom(server, newStore());
  expect(model.sha256).toBe(sha256(content));
  const restarts = events.filter((event) => event.phase === "restarted");
  expect(restarts.map((event) => event.receivedBytes)).toEqual([0, 0]);
  expect(restarts[0]?.note).toContain("does not resume");
  expect(server.transfers.map((request) => request.start)).toEqual([0, 0, 0]);
});

test("a server that cuts always and ignores ranges is given up", async () => {
  const content = randomModel(400_000);
  const cuts = Array.from({ length: 50 }, () => 100_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { cuts, ignoreRange: true },
  );
  const error = await failureOf(pullFrom(server, newStore()));
  expect(error.code).toBe("network");
  expect(server.transfers.length).toBeLessThanOrEqual(10);
});

test("a file that changes between two parts is fetched anew", async () => {
  const before = randomModel(500_000);
  const after = randomModel(600_000);
  await using server = await FaultServer.start({ "m.gguf": before }, { cuts: [300_000] });
  const store = newStore();
  const url = `${server.origin}/m.gguf`;
  const change = (event: PullProgress) => {
    if (event.receivedBytes < 300_000 || server.files.get("m.gguf") === after) return;
    server.files.set("m.gguf", after);
    server.faults.etag = '"two"';
  };
  const phases: string[] = [];
  const model = await pullModel(store, url, {
    retry,
    onProgress: (event) => {
      phases.push(event.phase);
      change(event);
    },
  });
  expect(model.sha256).toBe(sha256(after));
  expect(phases).toContain("restarted");
});

test("an entity tag that changes over the same bytes costs time, not the file", async () => {
  const content = randomModel(500_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { cuts: [300_000] },
  );
  const store = newStore();
  await stopAtFirstCut(server, store);
  server.faults.etag = '"two"';
  expect((await pullFrom(server, store)).model.sha256).toBe(sha256(content));
});

for (const [name, faults] of [
  ["no validator", { etag: undefined }],
  ["a weak entity tag", { etag: 'W/"x"' }],
  ["only a date", { etag: undefined, lastModified: "Tue, 01 Jul 2025 10:00:00 GMT" }],
] as const) {
  test(`resumes with ${name}`, async () => {
    const content = randomModel(500_000);
    await using server = await FaultServer.start(
      { "m.gguf": content },
      { cuts: [123_456], ...faults },
    );
    const { model } = await pullFrom(server, newStore(), `${server.origin}/m.gguf`);
    expect(model.sha256).toBe(sha256(content));
    expect(server.transfers.map((request) => request.start)).toEqual([0, 123_456]);
  });
}

test("a page instead of a model is not stored", async () => {
  const page = new TextEncoder().encode("<!doctype html><title>Sign in</title>".repeat(99));
  await using server = await FaultServer.start({ "m.gguf": page });
  const store = newStore();
  const error = await failureOf(pullFrom(server, store, `${server.origin}/m.gguf`));
  expect(error.code).toBe("invalidFile");
  expect(error.message).toContain("<!do");
  expect(store.list()).toEqual([]);
  expect(readdirSync(join(store.folder, "partial"))).toEqual([]);
});

test("a model that was cut before it came to the server is not stored", async () => {
  const tensor = { name: "w", type: "f32", shape: [64], content: new Uint8Array(256) } as const;
  const content = encodeGguf({ metadata: [], tensors: [tensor] });
  for (const length of [content.length - 1, 60]) {
    await using server = await FaultServer.start({ "cut.gguf": content.subarray(0, length) });
    const store = newStore();
    const address = `${server.origin}/cut.gguf`;
    const error = await failureOf(pullFrom(server, store, address));
    expect(error.code).toBe("invalidFile");
    expect(error.message).toContain("cut.gguf");
    expect(store.list()).toEqual([]);
    expect(readdirSync(join(store.folder, "partial"))).toEqual([]);
  }
});

test("busy servers are asked again, after the time they name", async () => {
  const content = randomModel(1000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    {
      refusals: [
        { status: 503 },
        { status: 429, headers: { "Retry-After": "1" } },
        { status: 500 },
      ],
    },
  );
  const started = performance.now();
  const { model } = await pullFrom(server, newStore());
  expect(model.sha256).toBe(sha256(content));
  expect(performance.now() - started).toBeGreaterThan(990);
});

for (const [status, code] of [
  [401, "network"],
  [403, "network"],
  [404, "notFound"],
] as const) {
  test(`status ${status} ends the pull at once`, async () => {
    await using server = await FaultServer.start(
      { "model-Q4_K_M.gguf": randomModel(1000) },
      { refusals: [{ status, headers: { "X-Error-Message": "you must accept the licence" } }] },
    );
    const error = await failureOf(pullFrom(server, newStore()));
    expect(error.code).toBe(code);
    expect(error.message).toContain("you must accept the licence");
    expect(error.hint).toBeDefined();
    expect(server.log).toHaveLength(1);
  });
}

test("the token goes to its host only", async () => {
  const content = randomModel(100_000);
  await using storage = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { cuts: [5_000] },
  );
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { redirectTo: storage.origin },
  );
  const env = { HF_TOKEN: "secret-token" };
  const { model, events } = await pullFrom(server, newStore(), reference, { env });
  expect(model.sha256).toBe(sha256(content));
  expect(server.log.map((request) => request.headers["authorization"])).toEqual([
    "Bearer secret-token",
    "Bearer secret-token",
  ]);
  expect(storage.log).toHaveLength(2);
  for (const request of storage.log) expect(request.headers["authorization"]).toBeUndefined();
  expect(JSON.stringify(events)).not.toContain("secret-token");
});

test("a redirect cannot lead to plain http elsewhere, nor in circles", async () => {
  const files = { "model-Q4_K_M.gguf": randomModel(1000) };
  await using server = await FaultServer.start(files, { redirectTo: "http://192.0.2.1" });
  expect((await failureOf(pullFrom(server, newStore()))).code).toBe("usage");
  server.faults.redirectTo = server.origin;
  expect((await failureOf(pullFrom(server, newStore()))).message).toContain("redirects");
});

test("a disk that is too small is found before the first byte", async () => {
  const content = randomModel(200_000);
  await using server = await FaultServer.start({ "model-Q4_K_M.gguf": content });
  const disk = { ...realDisk, freeBytes: () => 150_000 };
  const error = await failureOf(pullFrom(server, newStore(), reference, { disk }));
  expect(error.code).toBe("noSpace");
  expect(error.message).toContain("200000 bytes needed, 150000 free");
  expect(server.log).toEqual([]);
});

test("a disk that fills up keeps what it holds", async () => {
  const content = randomModel(900_000);
  await using server = await FaultServer.start({ "model-Q4_K_M.gguf": content });
  const store = newStore();
  const disk = {
    ...realDisk,
    async write(...[file, bytes, position]: Parameters<typeof realDisk.write>) {
      // Half of the piece still fits, as on a real disk.
      const fitting = Math.max(0, 400_000 - position);
      await realDisk.write(file, bytes.subarray(0, fitting), position);
      if (fitting < bytes.length) throw Object.assign(new Error("full"), { code: "ENOSPC" });
    },
  };
  const error = await failureOf(pullFrom(server, store, reference, { disk }));
  expect(error.code).toBe("noSpace");
  const { model, events } = await pullFrom(server, store);
  expect(model.sha256).toBe(sha256(content));
  const start = server.transfers[1]?.start ?? 0;
  expect(start).toBeGreaterThan(0);
  expect(start).toBeLessThanOrEqual(400_000);
  expect(events.some((event) => event.note?.includes("resuming"))).toBe(true);
});

test("an address without a published hash: expected hash, second pull, update", async () => {
  const content = randomModel(50_000);
  await using server = await FaultServer.start({ "m.gguf": content });
  const store = newStore();
  const url = `${server.origin}/m.gguf`;
  const wrong = await failureOf(pullFrom(server, store, url, { expectedSha256: "0".repeat(64) }));
  expect(wrong.code).toBe("checksum");
  await pullFrom(server, store, url, { expectedSha256: sha256(content).toUpperCase() });
  const transfers = server.transfers.length;
  await pullFrom(server, store, url);
  expect(server.transfers).toHaveLength(transfers + 1);
  const { events } = await pullFrom(server, store, url);
  expect(events.at(-1)?.note).toContain("unchanged");
  expect(server.transfers).toHaveLength(transfers + 1);
  const newer = randomModel(60_000);
  server.files.set("m.gguf", newer);
  server.faults.etag = '"two"';
  const { model } = await pullFrom(server, store, "m:latest");
  expect(model.sha256).toBe(sha256(newer));
  expect(store.list()).toHaveLength(1);
  expect(readdirSync(join(store.folder, "blobs"))).toEqual([`sha256-${sha256(newer)}`]);
  expect(readFileSync(model.paths[0]!)).toEqual(Buffer.from(newer));
});

test("the same name from another address takes no one's place", async () => {
  const first = randomModel(1000);
  const second = randomModel(1000);
  await using server = await FaultServer.start({ "a/m.gguf": first, "b/m.gguf": second });
  const store = newStore();
  await pullFrom(server, store, `${server.origin}/a/m.gguf`);
  const { model } = await pullFrom(server, store, `${server.origin}/b/m.gguf`);
  expect(model.tag).toBe(sha256(second).slice(0, 12));
  expect(store.find("m")?.sha256).toBe(sha256(first));
  expect(store.find(`${server.origin}/b/m.gguf`)?.sha256).toBe(sha256(second));
});
