// Importance matrices in both forms, and what is no importance matrix.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GgufValue } from "../../src/weights/gguf-types.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { readImportance } from "../../src/weights/importance.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-importance-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function tensor(name: string, shape: number[], values: number[]) {
  return {
    name,
    type: "f32",
    shape,
    content: new Uint8Array(Float32Array.from(values).buffer),
  } as const;
}

function ggufForm(name: string, tensors: ReturnType<typeof tensor>[]): string {
  const path = join(folder, name);
  const metadata: [string, GgufValue][] = [
    ["general.type", { type: "string", value: "imatrix" }],
    ["imatrix.datasets", { type: "array", of: "string", value: ["wiki.txt"] }],
    ["imatrix.chunk_count", { type: "u32", value: 7 }],
    ["imatrix.chunk_size", { type: "u32", value: 512 }],
  ];
  writeGguf(path, { metadata, tensors });
  return path;
}

test("GGUF form: sums over counts, per expert; experts without tokens count evenly", () => {
  const path = ggufForm("a.gguf", [
    tensor("one.weight.in_sum2", [1, 2], [8, 2]),
    tensor("one.weight.counts", [1, 1], [4]),
    tensor("two.weight.in_sum2", [2, 2], [6, 3, 0, 0]),
    tensor("two.weight.counts", [2, 1], [3, 0]),
  ]);
  const { values, datasets, numChunks } = readImportance(path);
  expect(Array.from(values.get("one.weight")!)).toEqual([2, 0.5]);
  expect(Array.from(values.get("two.weight")!)).toEqual([2, 1, 1, 1]);
  expect({ datasets, numChunks }).toEqual({ datasets: ["wiki.txt"], numChunks: 7 });
});

function binaryForm(name: string, tail: readonly Uint8Array[] = []): string {
  const path = join(folder, name);
  const int = (value: number) => new Uint8Array(Int32Array.of(value).buffer);
  const text = new TextEncoder().encode("a.weight");
  const values = new Uint8Array(Float32Array.of(6, 9).buffer);
  const bytes = [int(1), int(text.length), text, int(3), int(2), values, ...tail];
  writeFileSync(path, Buffer.concat(bytes));
  return path;
}

test("binary form: values over calls; chunks and the text's name are optional", () => {
  const int = (value: number) => new Uint8Array(Int32Array.of(value).buffer);
  const short = readImportance(binaryForm("short.dat"));
  expect(Array.from(short.values.get("a.weight")!)).toEqual([2, 3]);
  const name = new TextEncoder().encode("t.txt");
  const long = readImportance(binaryForm("long.dat", [int(3), int(name.length), name]));
  expect({ ...long, values: long.values.size }).toEqual({
    ...{ values: 1, datasets: ["t.txt"], numChunks: 3 },
  });
});

test("other files, cut ones and strange values are refused", () => {
  const wrong = (path: string) => () => readImportance(path);
  const noise = join(folder, "noise.dat");
  writeFileSync(
    noise,
    Uint8Array.from({ length: 64 }, (_, i) => (i * 37) % 251),
  );
  expect(wrong(noise)).toThrow("byte");
  writeFileSync(noise, new Uint8Array(8));
  expect(wrong(noise)).toThrow("no importance matrix");
  expect(wrong(join(folder, "absent"))).toThrow("cannot be read");
  const sums = tensor("a.in_sum2", [1, 2], [-1, 2]);
  expect(wrong(ggufForm("b.gguf", [sums]))).toThrow("no counts");
  const counts = tensor("a.counts", [1, 1], [1]);
  expect(wrong(ggufForm("c.gguf", [sums, counts]))).toThrow("negative");
});
