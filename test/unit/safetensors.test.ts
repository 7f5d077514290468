// Safetensors files and folders as hostile input: what is wrong is said by file, tensor and field.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../../src/core/errors.ts";
import { readSafetensors } from "../../src/weights/safetensors.ts";
import { readSafetensorsFolder } from "../../src/weights/safetensors-folder.ts";

const folder = mkdtempSync(join(tmpdir(), "tinfer-safetensors-"));
afterAll(() => rmSync(folder, { recursive: true }));

let count = 0;

/** A file with the header as it is given and `dataBytes` bytes after it. */
function file(header: unknown, dataBytes: number, headerBytes?: bigint): string {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(headerBytes ?? BigInt(text.length));
  const path = join(folder, `${count++}.safetensors`);
  writeFileSync(path, Buffer.concat([length, text, Buffer.alloc(dataBytes)]));
  return path;
}

const f32 = (shape: unknown, range: unknown) => ({ dtype: "F32", shape, data_offsets: range });

function refusal(path: string): string {
  try {
    readSafetensors(path);
  } catch (error) {
    if (!(error instanceof TinferError)) throw error;
    expect(error.hint).not.toBe(undefined);
    expect(error.message).toContain(path);
    return error.message;
  }
  throw new Error("it was read");
}

describe("a file", () => {
  test("is read with offsets from its start", () => {
    const header = { __metadata__: { format: "pt" }, b: f32([2], [4, 12]), a: f32([], [0, 4]) };
    const { tensors } = readSafetensors(file(header, 12), 3);
    const start = 8 + JSON.stringify(header).length;
    expect(tensors.get("b")).toEqual({
      ...{ name: "b", dtype: "F32", shape: [2], fileIndex: 3, offset: start + 4, bytes: 8 },
    });
    expect(tensors.get("a")!.offset).toBe(start);
  });

  const cases: readonly (readonly [string, string, RegExp])[] = [
    ["no header", file("", 0, 2n ** 40n), /header length: 1099511627776 bytes/],
    ["a header past the end", file("{}", 0, 100n), /98 are missing/],
    ["a header of 2^64 - 1", file("{}", 0, 2n ** 64n - 1n), /header length/],
    ["no JSON", file("{ nonsense", 0), /not JSON/],
    ["an array", file([], 0), /not a JSON object/],
    ["an entry that is no object", file({ a: 1 }, 0), /'a': its entry/],
    ["an unknown dtype", file({ a: { dtype: "F31" } }, 0), /'a': dtype 'F31'/],
    ["a dtype of the prototype", file({ a: { dtype: "toString" } }, 0), /dtype/],
    ["a negative dimension", file({ a: f32([-1], [0, 4]) }, 4), /'a': shape/],
    ["a fractional dimension", file({ a: f32([1.5], [0, 6]) }, 6), /'a': shape/],
    ["a shape that is a text", file({ a: f32("1", [0, 4]) }, 4), /'a': shape/],
    ["too many dimensions", file({ a: f32([1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 4]) }, 4), /9 dim/],
    ["too many elements", file({ a: f32([2 ** 40, 2 ** 40], [0, 4]) }, 4), /too many elements/],
    ["reversed offsets", file({ a: f32([1], [4, 0]) }, 4), /reversed/],
    ["one offset", file({ a: f32([1], [0]) }, 4), /data_offsets are not two/],
    ["negative offsets", file({ a: f32([1], [-4, 0]) }, 4), /data_offsets are not two/],
    ["offsets past the end", file({ a: f32([2], [0, 8]) }, 4), /4 bytes are missing/],
    ["another size than its shape", file({ a: f32([2], [0, 4]) }, 4), /hold 4 bytes.*make 8/],
    ["an overlap", file({ a: f32([2], [0, 8]), b: f32([1], [4, 8]) }, 8), /'b' and.*'a' overlap/],
    ["a hole", file({ a: f32([1], [0, 4]), b: f32([1], [8, 12]) }, 12), /4 bytes between/],
    ["unused bytes at the end", file({ a: f32([1], [0, 4]) }, 9), /5 bytes after.*'a'/],
  ];
  for (const [name, path, message] of cases) {
    test(`with ${name} is refused`, () => expect(refusal(path)).toMatch(message));
  }

  test("that is missing, a folder or empty is refused", () => {
    expect(refusal(join(folder, "none.safetensors"))).toMatch(/no such file/);
    expect(refusal(folder)).toMatch(/cannot be read/);
    const empty = join(folder, "empty.safetensors");
    writeFileSync(empty, "");
    expect(refusal(empty)).toMatch(/has 0 bytes/);
  });

  test("cut anywhere is refused, with any byte changed nothing but a TinferError comes out", () => {
    const whole = file({ a: f32([2], [0, 8]), b: f32([1, 3], [8, 20]) }, 20);
    const bytes = readFileSync(whole);
    const mutant = join(folder, "mutant.safetensors");
    for (let length = 0; length < bytes.length; length++) {
      writeFileSync(mutant, bytes.subarray(0, length));
      refusal(mutant);
    }
    for (let at = 0; at < bytes.length - 20; at++) {
      const changed = Buffer.from(bytes);
      changed[at] = changed[at]! ^ (1 + (at % 255));
      writeFileSync(mutant, changed);
      try {
        readSafetensors(mutant);
      } catch (error) {
        expect(error).toBeInstanceOf(TinferError);
      }
    }
  });
});

describe("a folder with an index", () => {
  const shards = mkdtempSync(join(folder, "shards-"));
  const write = (name: string, from: string) => {
    writeFileSync(join(shards, name), readFileSync(from));
  };
  const index = (weightMap: unknown) => {
    const path = join(shards, "model.safetensors.index.json");
    writeFileSync(path, JSON.stringify({ weight_map: weightMap }));
    return () => readSafetensorsFolder(shards);
  };
  write("x.safetensors", file({ a: f32([1], [0, 4]) }, 4));
  write("y.safetensors", file({ b: f32([1], [0, 4]) }, 4));
  write("z.safetensors", file({ b: f32([1], [0, 4]) }, 4));

  test("joins its shards", () => {
    const { tensors, paths } = index({ a: "x.safetensors", b: "y.safetensors" })();
    expect(paths.length).toBe(2);
    expect(tensors.get("b")!.fileIndex).toBe(1);
  });

  test("that does not match its shards is refused", () => {
    expect(index({ a: "y.safetensors" })).toThrow(/'a' should be in y.safetensors/);
    expect(index({ a: "x.safetensors", c: "y.safetensors" })).toThrow(/'c' should be in y/);
    expect(index({ a: "x.safetensors", b: "w.safetensors" })).toThrow(/no such file/);
    const both = { a: "x.safetensors", b: "y.safetensors", c: "z.safetensors" };
    expect(index(both)).toThrow(/'b' is in .*y.safetensors and in .*z.safetensors/);
  });

  test("that leads out of the folder is refused", () => {
    for (const name of ["../x.safetensors", "/etc/x.safetensors", "x.bin", 7, null]) {
      expect(index({ a: name })).toThrow(/weight_map of tensor 'a'/);
    }
    expect(index({})).toThrow(/empty/);
    expect(index([])).toThrow(/weight_map/);
  });
});
