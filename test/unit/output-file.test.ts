// Results that a person names a file for: which file that is, and that half of one is never seen.
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { outputFile, SequentialFile } from "../../src/core/output-file.ts";

let folder: string;
const at = (name: string) => join(folder, name);
const bytes = (text: string) => new TextEncoder().encode(text);

beforeAll(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "tinfer-output-file-")));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("links lead to the file behind them, also to one that is not there yet", () => {
  expect(outputFile(at("plain"))).toBe(at("plain"));
  writeFileSync(at("real"), "old");
  symlinkSync("real", at("link"));
  symlinkSync("link", at("far"));
  symlinkSync("later", at("dangling"));
  expect(outputFile(at("far"))).toBe(at("real"));
  expect(outputFile(at("dangling"))).toBe(at("later"));
});

test("where no file can be, it is said at once", () => {
  symlinkSync("two", at("one"));
  symlinkSync("one", at("two"));
  symlinkSync(".", at("here"));
  expect(() => outputFile("")).toThrow("is empty");
  expect(() => outputFile(folder)).toThrow("is a folder");
  expect(() => outputFile(at("here"))).toThrow("is a folder");
  expect(() => outputFile(at("no/such"))).toThrow("cannot be written");
  expect(() => outputFile(at("one"))).toThrow("cannot be written");
});

test("the name has the old content until the new one is whole", () => {
  writeFileSync(at("result"), "old");
  {
    using file = new SequentialFile(at("result"));
    file.write(bytes("ne"));
    expect(readFileSync(at("result"), "utf8")).toBe("old");
    file.write(bytes("w"));
    file.place();
  }
  expect(readFileSync(at("result"), "utf8")).toBe("new");
  {
    using file = new SequentialFile(at("result"));
    file.write(bytes("half"));
  }
  expect(readFileSync(at("result"), "utf8")).toBe("new");
  expect(readdirSync(folder).filter((name) => name.endsWith(".partial"))).toEqual([]);
});

test.skipIf(!existsSync("/dev/full"))("a full disk is said, and leaves nothing behind", () => {
  // Whoever opens the draft's name gets the device that is always full.
  symlinkSync("/dev/full", at("much.partial"));
  using file = new SequentialFile(at("much"));
  expect(() => file.write(bytes("x"))).toThrow("the disk is full");
  expect(lstatSync(at("much.partial"), { throwIfNoEntry: false })).toBeUndefined();
});

test.skipIf(process.platform === "win32")("a pipe takes the bytes and stays a pipe", async () => {
  Bun.spawnSync(["mkfifo", at("pipe")]);
  const reader = Bun.spawn(["cat", at("pipe")], { stdout: "pipe" });
  {
    using file = new SequentialFile(at("pipe"));
    file.write(bytes("through"));
    file.place();
  }
  expect(await new Response(reader.stdout).text()).toBe("through");
  expect(lstatSync(at("pipe")).isFIFO()).toBe(true);
});
