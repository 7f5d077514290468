// `tinfer pull`, `ls`, `cp` and `rm` against a store of their own and a host that fails on demand.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StoredModel } from "../../src/store/store.ts";
import { encodeGguf } from "../../src/weights/gguf-writer.ts";
import { FaultServer, randomModel, sha256 } from "../fault-server.ts";
import { start, tinfer, tinferJson } from "./spawn.ts";
import { tinyModel } from "./tiny-model.ts";

setDefaultTimeout(60_000);

let folder: string;
const model = encodeGguf(tinyModel());

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-cli-store-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A store of its own per test, and the host's address. */
function surroundings(name: string, server?: FaultServer) {
  const env = { TINFER_HOME: join(folder, name), ...(server && { HF_ENDPOINT: server.origin }) };
  return { env };
}

test("pull, ls, show, run, cp and rm of a model", async () => {
  await using server = await FaultServer.start({ "tiny-Q8_0.gguf": model });
  const options = surroundings("whole", server);
  expect(await tinferJson<StoredModel[]>(["ls"], options)).toEqual([]);
  const pulled = await tinferJson<StoredModel>(["pull", "hf:someone/tiny-GGUF"], options);
  expect(pulled).toMatchObject({ bytes: model.length, sha256: sha256(model) });
  expect(readFileSync(pulled.paths[0]!).equals(model)).toBe(true);

  const name = `${pulled.name}:${pulled.tag}`;
  const [listed, table, shown, answer] = await Promise.all([
    tinferJson<StoredModel[]>(["ls"], options),
    tinfer(["list"], options),
    tinferJson<{ architecture: string }>(["show", name], options),
    tinfer(["run", name, "hi", "--raw", "--max-tokens", "1"], options),
  ]);
  expect(listed).toEqual([pulled]);
  const [head, line] = table.stdout.split("\n");
  expect(head).toMatch(/^NAME\s+SIZE\s+MODIFIED/);
  expect(line).toContain(name);
  expect(line).toContain("1.89 MB");
  expect(shown.architecture).toBe("llama");
  expect(answer.exitCode).toBe(0);

  const copied = await tinfer(["cp", name, "mine:one"], options);
  expect(copied).toMatchObject({ stderr: "", exitCode: 0 });
  const taken = await tinfer(["cp", name, "mine:one"], options);
  expect(taken).toMatchObject({ stdout: "", exitCode: 2 });
  const kept = await tinferJson<unknown>(["rm", name], options);
  expect(kept).toEqual([{ name, freedBytes: 0 }]);
  const freed = await tinferJson<unknown>(["rm", "mine:one"], options);
  expect(freed).toEqual([{ name: "mine:one", freedBytes: model.length }]);
  expect(await tinferJson<StoredModel[]>(["ls"], options)).toEqual([]);
});

test("rm looks all names up before it removes one", async () => {
  await using server = await FaultServer.start({ "tiny.gguf": model });
  const options = surroundings("rm", server);
  const { name } = await tinferJson<StoredModel>(["pull", "hf:someone/tiny"], options);
  const result = await tinfer(["rm", name, "absent"], options);
  expect(result).toMatchObject({ stdout: "", exitCode: 1 });
  expect(result.stderr).toContain('"absent"');
  expect((await tinferJson<StoredModel[]>(["ls"], options)).length).toBe(1);
});

test("a wrong hash is an error and stores nothing", async () => {
  await using server = await FaultServer.start({ "tiny.gguf": model }, { corruptAt: 1000 });
  const options = surroundings("hash", server);
  const corrupt = await tinfer(["pull", "hf:someone/tiny"], options);
  expect(corrupt).toMatchObject({ stdout: "", exitCode: 1 });
  const other = "0".repeat(64);
  const expected = await tinfer(["pull", "hf:someone/tiny", "--sha256", other], options);
  expect(expected).toMatchObject({ stdout: "", exitCode: 1 });
  expect(expected.stderr).toContain(other);
  const malformed = await tinfer(["pull", "hf:someone/tiny", "--sha256", "abc"], options);
  expect(malformed).toMatchObject({ stdout: "", exitCode: 2 });
  expect(await tinferJson<StoredModel[]>(["ls"], options)).toEqual([]);
});

test("Ctrl-C keeps what has arrived; the next pull fetches only the rest", async () => {
  const large = randomModel(4 << 20);
  await using server = await FaultServer.start({ "large.gguf": large }, { pieceDelayMs: 40 });
  const options = surroundings("resume", server);
  const child = start(["pull", "hf:someone/large"], options);
  while (server.sentBytes < 1 << 20) await Bun.sleep(20);
  child.kill("SIGINT");
  const stderr = await new Response(child.stderr).text();
  expect(await child.exited).toBe(130);
  expect(stderr).toContain("pull again to go on");
  const partial = join(folder, "resume", "partial");
  expect(existsSync(partial) && readdirSync(partial).length > 0).toBe(true);

  server.faults.pieceDelayMs = 0;
  const again = await tinferJson<StoredModel>(["pull", "hf:someone/large"], options);
  expect(again.sha256).toBe(sha256(large));
  const resumed = server.transfers.at(-1)!;
  expect(resumed.status).toBe(206);
  expect(resumed.start).toBeGreaterThan(512 << 10);
});

test("a source or name that does not exist is said with the next step", async () => {
  await using server = await FaultServer.start({});
  const options = surroundings("absent", server);
  const [empty, name, path] = await Promise.all([
    tinfer(["pull", "hf:someone/nothing"], options),
    tinfer(["pull", "nothing"], options),
    tinfer(["pull", "./model.gguf"], options),
  ]);
  for (const result of [empty, name, path]) {
    expect(result.stdout).toBe("");
    expect(result.stderr).not.toMatch(/bug in tinfer|\n\s+at /);
  }
  expect(empty.exitCode).toBe(1);
  expect(name.exitCode).toBe(1);
  expect(name.stderr).toContain("tinfer pull hf:user/repo");
  expect(path.exitCode).toBe(2);
});
