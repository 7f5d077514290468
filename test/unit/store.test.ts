// The store without a network: names, copies, shared blobs, locks of the living and the dead.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import { isLock, tryLock } from "../../src/core/lock.ts";
import { blobPath } from "../../src/store/blobs.ts";
import { locateModel } from "../../src/store/locate.ts";
import { defaultStoreFolder, ModelStore } from "../../src/store/store.ts";

let folder: string;
let store: ModelStore;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-store-"));
  store = new ModelStore(folder);
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

function add(name: string, tag: string, content: string, source = `hf:${name}:${tag}`) {
  const sha256 = new Bun.CryptoHasher("sha256").update(content).digest("hex");
  mkdirSync(join(folder, "blobs"), { recursive: true });
  writeFileSync(blobPath(folder, sha256), content);
  const files = [{ fileName: "m.gguf", sha256, bytes: content.length }];
  return store.add({ name, tag, source, files, createdAt: "2025-07-01T00:00:00.000Z" });
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof TinferError) return error.code;
    throw error;
  }
  return "none";
}

test("an empty store, also one without a folder", () => {
  expect(store.list()).toEqual([]);
  expect(new ModelStore(join(folder, "absent")).list()).toEqual([]);
  expect(existsSync(join(folder, "absent"))).toBe(false);
  expect(store.find("x")).toBeUndefined();
  expect(codeOf(() => store.remove("x"))).toBe("notFound");
});

test("lists by name and tag; finds by name, short name and source", () => {
  add("u/beta", "Q8_0", "1");
  add("alpha", "latest", "22", "https://example.org/alpha.gguf");
  add("u/beta", "Q4_0", "333");
  expect(store.list().map(({ name, tag }) => `${name}:${tag}`)).toEqual([
    "alpha:latest",
    "u/beta:Q4_0",
    "u/beta:Q8_0",
  ]);
  expect(store.find("alpha")?.bytes).toBe(2);
  expect(store.find("https://example.org/alpha.gguf")?.name).toBe("alpha");
  expect(store.find("beta:q4_0")?.bytes).toBe(3);
  expect(store.find("hf:u/beta:q8_0")?.bytes).toBe(1);
  expect(store.find("beta:latest")).toBeUndefined();
  expect(codeOf(() => store.find("beta"))).toBe("usage");
  store.remove("beta:Q8_0");
  expect(store.find("beta")?.tag).toBe("Q4_0");
  expect(store.find("hf:u/beta")?.tag).toBe("Q4_0");
});

test("a blob is freed with its last name", () => {
  const model = add("a", "latest", "content");
  store.copy("a", "b:one");
  expect(codeOf(() => store.copy("a", "b:one"))).toBe("usage");
  expect(codeOf(() => store.copy("a", "./b"))).toBe("usage");
  expect(codeOf(() => store.copy("none", "c"))).toBe("notFound");
  expect(store.find("b:one")?.sha256).toBe(model.sha256);
  expect(store.remove("a")).toEqual({ freedBytes: 0 });
  expect(existsSync(model.paths[0]!)).toBe(false);
  expect(existsSync(store.find("b")!.paths[0]!)).toBe(true);
  expect(store.remove("b")).toEqual({ freedBytes: 7 });
  expect(readdirSync(join(folder, "blobs"))).toEqual([]);
  expect(readdirSync(join(folder, "manifests"))).toEqual([]);
});

test("names that contain each other do not lie in each other", () => {
  add("a", "b", "1");
  add("a/b", "c", "2");
  add("a", "b.json", "3");
  store.remove("a:b");
  expect(store.list().map(({ name, tag }) => `${name}:${tag}`)).toEqual(["a:b.json", "a/b:c"]);
  for (const { paths } of store.list()) expect(existsSync(paths[0]!)).toBe(true);
});

test("a damaged manifest is named", () => {
  add("a", "latest", "1");
  writeFileSync(join(folder, "manifests", "a", "latest", "manifest.json"), '{"name":');
  expect(codeOf(() => store.list())).toBe("invalidFile");
});

test("a model without its blob cannot be added", () => {
  const files = [{ fileName: "m.gguf", sha256: "0".repeat(64), bytes: 1 }];
  const manifest = { name: "a", tag: "t", source: "hf:a/b", files, createdAt: "now" };
  expect(codeOf(() => store.add(manifest))).toBe("notFound");
  expect(store.list()).toEqual([]);
});

test("locates paths before names, and says what is near", () => {
  const model = add("user/smol", "Q4_K_M", "1");
  expect(locateModel("smol", store)).toBe(model.paths[0]!);
  const file = join(folder, "x.gguf");
  writeFileSync(file, "x");
  expect(locateModel(file, store)).toBe(file);
  try {
    locateModel("smoll", store);
    throw new Error("located");
  } catch (error) {
    expect(error).toHaveProperty("code", "notFound");
    expect(error).toHaveProperty("hint", expect.stringContaining("user/smol:Q4_K_M"));
    expect(error).toHaveProperty("hint", expect.stringContaining("tinfer pull"));
  }
  for (const text of [`${file}.gguf`, "hf:a/b:Q8_0", "qqqqqqqqqqqqqqqq", "ollama:x"]) {
    expect(codeOf(() => locateModel(text, store))).toBe("notFound");
  }
  rmSync(model.paths[0]!);
  rmSync(blobPath(folder, model.sha256));
  expect(codeOf(() => locateModel("smol", store))).toBe("unreadable");
});

test("the folder follows TINFER_HOME and the platform's habits", () => {
  expect(defaultStoreFolder({ TINFER_HOME: "/data/models" })).toBe("/data/models");
  if (process.platform !== "linux") return;
  expect(defaultStoreFolder({ HOME: "/home/me" })).toBe("/home/me/.local/share/tinfer");
  expect(defaultStoreFolder({ HOME: "/h", XDG_DATA_HOME: "/x", TINFER_HOME: "" })).toBe(
    "/x/tinfer",
  );
});

test("a lock is held once, released, and taken from the dead only", () => {
  const path = join(folder, "some.lock");
  const lock = tryLock(path);
  expect(isLock(lock)).toBe(true);
  expect(tryLock(path)).toHaveProperty("pid", process.pid);
  if (isLock(lock)) lock[Symbol.dispose]();
  expect(existsSync(path)).toBe(false);

  const dead = Bun.spawnSync([process.execPath, "-e", ""]).pid;
  const owners = [
    { pid: dead, host: hostname(), startedAt: "" },
    // Our own id, but of a process that started at another time: the id was reused.
    ...(process.platform === "linux"
      ? [{ pid: process.pid, host: hostname(), startedAt: "1" }]
      : []),
  ];
  for (const owner of owners) {
    writeFileSync(path, JSON.stringify(owner));
    const taken = tryLock(path);
    expect(isLock(taken)).toBe(true);
    if (isLock(taken)) taken[Symbol.dispose]();
  }
  writeFileSync(path, JSON.stringify({ pid: dead, host: `not-${hostname()}`, startedAt: "" }));
  expect(isLock(tryLock(path))).toBe(false);
  expect(readdirSync(folder)).toEqual(["some.lock"]);
});

test("many processes take over one left lock one at a time", async () => {
  const path = join(folder, "some.lock");
  const dead = Bun.spawnSync([process.execPath, "-e", ""]).pid;
  writeFileSync(path, JSON.stringify({ pid: dead, host: hostname(), startedAt: "" }));
  const module = JSON.stringify(join(import.meta.dir, "../../src/core/lock.ts"));
  const section = JSON.stringify(join(folder, "section"));
  const program = `
    import { lockNow } from ${module};
    import { openSync, closeSync, rmSync } from "node:fs";
    for (let i = 0; i < 20; i++) {
      using lock = lockNow(${JSON.stringify(path)});
      closeSync(openSync(${section}, "wx"));
      rmSync(${section});
    }`;
  const children = [0, 1, 2].map(() => Bun.spawn([process.execPath, "-e", program]));
  const codes = await Promise.all(children.map((child) => child.exited));
  expect(codes).toEqual([0, 0, 0]);
  expect(readdirSync(folder)).toEqual([]);
});
