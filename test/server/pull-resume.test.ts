// Cuts, kills and stops of a pull: the file arrives whole and no byte is fetched twice.
import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import { type PullProgress, pullModel } from "../../src/store/pull.ts";
import { ModelStore } from "../../src/store/store.ts";
import { FaultServer, randomModel, sha256 } from "../fault-server.ts";

const folders: string[] = [];
const retry = { firstDelayMs: 5, stallMs: 5_000 };
const reference = "hf:someone/model:Q4_K_M";

function newStore(): ModelStore {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-pull-"));
  folders.push(folder);
  return new ModelStore(folder);
}

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** Every answer begins where the one before it ended, and together they are the file once. */
function expectEachByteOnce(server: FaultServer, totalBytes: number): void {
  let next = 0;
  for (const { start, sentBytes } of server.transfers) {
    expect(start).toBe(next);
    next += sentBytes;
  }
  expect(next).toBe(totalBytes);
}

function randomCuts(count: number, totalBytes: number): number[] {
  const cuts = Array.from(
    { length: count },
    () => 1 + Math.floor(Math.random() * (totalBytes - 2)),
  );
  return cuts.sort((a, b) => a - b);
}

for (const chunked of [false, true]) {
  test(`ten cuts at random bytes${chunked ? ", chunked" : ""}`, async () => {
    const content = randomModel(24_000_000 + Math.floor(Math.random() * 1000));
    const cuts = randomCuts(10, content.length);
    const numAnswers = new Set(cuts).size + 1;
    await using server = await FaultServer.start(
      { "model-Q4_K_M.gguf": content },
      { cuts, chunked },
    );
    const store = newStore();
    const seen: PullProgress[] = [];
    const stored = await pullModel(store, reference, {
      endpoint: server.origin,
      retry,
      onProgress: (progress) => seen.push(progress),
    });
    expect(stored.sha256).toBe(sha256(content));
    expect(sha256(readFileSync(stored.paths[0]!))).toBe(sha256(content));
    expect(server.transfers).toHaveLength(numAnswers);
    expectEachByteOnce(server, content.length);
    const received = seen.filter((one) => one.phase === "downloading");
    for (const [index, one] of received.entries()) {
      if (index > 0)
        expect(one.receivedBytes).toBeGreaterThanOrEqual(received[index - 1]!.receivedBytes);
      expect(one.totalBytes).toBe(content.length);
    }
    expect(seen.at(-1)?.phase).toBe("done");
    expect(readdirSync(join(store.folder, "partial"))).toEqual([]);
  });
}

test("a reset connection loses what was under way and nothing else", async () => {
  const content = randomModel(8_000_000);
  const cuts = randomCuts(5, content.length);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { cuts, cutWith: "reset" },
  );
  const stored = await pullModel(newStore(), reference, { endpoint: server.origin, retry });
  expect(stored.sha256).toBe(sha256(content));
  let before = 0;
  for (const { start, sentBytes } of server.transfers) {
    expect(start).toBeLessThanOrEqual(before);
    before = start + sentBytes;
  }
});

test("a silent connection counts as cut", async () => {
  const content = randomModel(1_000_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { stalls: [300_001] },
  );
  const stored = await pullModel(newStore(), reference, {
    endpoint: server.origin,
    retry: { firstDelayMs: 5, stallMs: 200 },
  });
  expect(stored.sha256).toBe(sha256(content));
  expectEachByteOnce(server, content.length);
});

test("kill -9 in the middle, then go on", async () => {
  const content = randomModel(12_000_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { pieceDelayMs: 5 },
  );
  const store = newStore();
  const program = `
    import { pullModel } from ${JSON.stringify(join(import.meta.dir, "../../src/store/pull.ts"))};
    import { ModelStore } from ${JSON.stringify(join(import.meta.dir, "../../src/store/store.ts"))};
    await pullModel(new ModelStore(${JSON.stringify(store.folder)}), "${reference}",
      { endpoint: "${server.origin}" });`;
  const partial = join(store.folder, "partial", `sha256-${sha256(content)}`);
  let keptBytes = 0;
  for (let kills = 0; kills < 3; kills++) {
    const child = Bun.spawn([process.execPath, "-e", program], { stdout: "ignore" });
    const goalBytes = keptBytes + 1_000_000;
    while (!existsSync(partial) || statSync(partial).size < goalBytes) await Bun.sleep(2);
    child.kill("SIGKILL");
    await child.exited;
    expect(statSync(partial).size).toBeGreaterThanOrEqual(goalBytes);
    keptBytes = statSync(partial).size;
    expect(existsSync(`${partial}.lock`)).toBe(true);
  }
  server.faults.pieceDelayMs = 0;
  const phases = new Set<string>();
  const stored = await pullModel(store, reference, {
    endpoint: server.origin,
    retry,
    onProgress: ({ phase }) => phases.add(phase),
  });
  expect(stored.sha256).toBe(sha256(content));
  expect(server.transfers.at(-1)?.start).toBe(keptBytes);
  expect(phases.has("verifying")).toBe(true);
  const starts = server.transfers.map((request) => request.start);
  expect(starts).toHaveLength(4);
  expect(starts).toEqual([...starts].sort((a, b) => a - b));
});

test("an abort keeps what has arrived, and the next pull goes on there", async () => {
  const content = randomModel(4_000_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { stalls: [1_234_567] },
  );
  const store = newStore();
  const partial = join(store.folder, "partial", `sha256-${sha256(content)}`);
  const stop = new AbortController();
  const pulling = pullModel(store, reference, { endpoint: server.origin, signal: stop.signal });
  while (!existsSync(partial) || statSync(partial).size < 1_234_567) await Bun.sleep(2);
  stop.abort();
  const error = await pulling.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(TinferError);
  expect(error).toHaveProperty("code", "cancelled");
  expect(statSync(partial).size).toBe(1_234_567);
  expect(existsSync(`${partial}.lock`)).toBe(false);
  const stored = await pullModel(store, reference, { endpoint: server.origin });
  expect(stored.sha256).toBe(sha256(content));
  expectEachByteOnce(server, content.length);
});

test("an already aborted signal asks nobody", async () => {
  await using server = await FaultServer.start({ "model-Q4_K_M.gguf": randomModel(1000) });
  const options = { endpoint: server.origin, signal: AbortSignal.abort() };
  expect(pullModel(newStore(), reference, options)).rejects.toHaveProperty("code", "cancelled");
  expect(server.log).toEqual([]);
});

test("two processes and two callers share one download", async () => {
  const content = randomModel(3_000_000);
  await using server = await FaultServer.start(
    { "model-Q4_K_M.gguf": content },
    { pieceDelayMs: 3 },
  );
  const store = newStore();
  const program = `
    import { pullModel } from ${JSON.stringify(join(import.meta.dir, "../../src/store/pull.ts"))};
    import { ModelStore } from ${JSON.stringify(join(import.meta.dir, "../../src/store/store.ts"))};
    const model = await pullModel(new ModelStore(${JSON.stringify(store.folder)}), "${reference}",
      { endpoint: "${server.origin}" });
    console.log(model.sha256);`;
  const children = [0, 1].map(() => Bun.spawn([process.execPath, "-e", program]));
  const here = [0, 1].map(() => pullModel(store, reference, { endpoint: server.origin }));
  const printed = await Promise.all(children.map((child) => new Response(child.stdout).text()));
  const hashes = (await Promise.all(here)).map((model) => model.sha256);
  const all = [...printed.map((text) => text.trim()), ...hashes];
  expect(all).toEqual(Array.from({ length: 4 }, () => sha256(content)));
  expectEachByteOnce(server, content.length);
  expect(store.list()).toHaveLength(1);
});
