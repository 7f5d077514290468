// Models written again: what is finished survives a stop at any moment, files split and merge
// without loss, stacks of experts are quantised with their own importance.
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readGguf } from "../../src/weights/gguf.ts";
import { encodeGguf, writeGguf } from "../../src/weights/gguf-writer.ts";
import { quantizeMatrix } from "../../src/weights/quantize.ts";
import { type NewFile, newFileBytes, rewriteModel } from "../../src/weights/rewrite-model.ts";
import { splitFiles, withoutSplit } from "../../src/weights/split-model.ts";
import { readTensorBytes, readTensorFloats } from "../../src/weights/tensor-content.ts";
import { tinyModel } from "../cli/tiny-model.ts";

let folder: string;
let source: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-rewrite-"));
  source = join(folder, "source.gguf");
  writeGguf(source, tinyModel({ experts: { count: 4, used: 2 } }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function newFile(path: string, importance?: Map<string, Float32Array>): NewFile {
  const input = readGguf(source);
  const tensors = Array.from(input.tensors.values(), (tensor) => ({
    source: tensor,
    type: tensor.shape.length > 1 ? ("q4_k" as const) : tensor.type,
    importance: importance?.get(tensor.name),
  }));
  return { path, metadata: withoutSplit(input.values), tensors };
}

function finish(files: readonly NewFile[], from = source): number {
  let kept = 0;
  for (const { numKept } of rewriteModel(readGguf(from), files, 2)) kept = numKept;
  return kept;
}

/** Runs until `numTensors` are finished, and stops there as a kill would. */
function stopAfter(files: readonly NewFile[], numTensors: number): void {
  const seen = new Set<string>();
  for (const { tensor } of rewriteModel(readGguf(source), files, 2)) {
    seen.add(tensor);
    if (seen.size > numTensors) return;
  }
}

test("a stopped run goes on, and makes the same bytes as one that was not", () => {
  const whole = newFile(join(folder, "whole.gguf"));
  finish([whole]);
  const part = newFile(join(folder, "part.gguf"));
  stopAfter([part], 5);
  expect(existsSync(part.path)).toBe(false);
  expect(existsSync(`${part.path}.partial`)).toBe(true);
  expect(finish([part])).toBe(5);
  const expected = readFileSync(whole.path);
  expect(Buffer.compare(readFileSync(part.path), expected)).toBe(0);
  expect(expected.length).toBe(newFileBytes(whole));
  expect(readdirSync(folder).filter((name) => name.includes("partial"))).toEqual([]);
});

test("a file that is being written has one writer; who comes second loses nothing", () => {
  const part = newFile(join(folder, "contested.gguf"));
  const first = rewriteModel(readGguf(source), [part], 2);
  for (const { tensor } of first) if (tensor === part.tensors[3]!.source.name) break;
  // Breaking off ends the first writer and its lock; what it finished is there.
  const second = rewriteModel(readGguf(source), [part], 2);
  expect(second.next().value).toMatchObject({ numKept: 1 });
  const lock = `${part.path}.partial.lock`;
  expect(existsSync(lock)).toBe(true);
  const journal = readFileSync(`${part.path}.partial.journal`, "utf8");
  const other = { ...part, tensors: part.tensors.slice(0, 2) };
  for (const files of [[part], [other], [newFile(join(folder, "free.gguf")), other]]) {
    expect(() => finish(files)).toThrow(`process ${process.pid} is writing ${part.path}`);
  }
  expect(readFileSync(`${part.path}.partial.journal`, "utf8")).toBe(journal);
  for (const _ of second);
  expect(existsSync(lock)).toBe(false);
  expect(readGguf(part.path).tensors.size).toBe(part.tensors.length);
});

test("finished tensors whose bytes changed are made again", () => {
  const part = newFile(join(folder, "damaged.gguf"));
  stopAfter([part], 3);
  const partial = `${part.path}.partial`;
  const file = openSync(partial, "r+");
  // A byte of the second tensor.
  const [first] = part.tensors;
  writeSync(file, Uint8Array.of(99), 0, 1, newFileBytes({ ...part, tensors: [first!] }) + 4000);
  expect(finish([part])).toBe(2);
  const whole = readFileSync(join(folder, "whole.gguf"));
  expect(Buffer.compare(readFileSync(part.path), whole)).toBe(0);
});

test("what was begun from another source, or for other types, is not gone on with", () => {
  const part = newFile(join(folder, "stale.gguf"));
  stopAfter([part], 4);
  utimesSync(source, new Date(), new Date(Date.now() + 5000));
  expect(finish([part])).toBe(0);
  stopAfter([part], 4);
  const tensors = part.tensors.map((tensor) => ({ ...tensor, type: tensor.source.type }));
  expect(finish([{ ...part, tensors }])).toBe(0);
});

test("a model in several files is the same model, and merges into the same bytes", () => {
  const content = newFile(join(folder, "parts.gguf"));
  const kept = content.tensors.map((tensor) => ({ ...tensor, type: tensor.source.type }));
  const files = splitFiles({ ...content, tensors: kept }, { maxTensors: 5 });
  expect(files.length).toBe(3);
  expect(files[1]!.path).toBe(join(folder, "parts-00002-of-00003.gguf"));
  finish(files);
  const joined = readGguf(files[0]!.path);
  expect([...joined.tensors.keys()]).toEqual([...readGguf(source).tensors.keys()]);
  const tensors = Array.from(joined.tensors.values(), (tensor) => {
    return { source: tensor, type: tensor.type, importance: undefined };
  });
  const path = join(folder, "merged.gguf");
  finish([{ path, metadata: withoutSplit(joined.values), tensors }], files[0]!.path);
  const expected = encodeGguf(tinyModel({ experts: { count: 4, used: 2 } }));
  expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
});

test("files by size: each within the limit, a larger tensor alone", () => {
  const content = newFile(join(folder, "sized.gguf"));
  const sizes = (maxBytes: number) =>
    splitFiles(content, { maxBytes }).map(({ tensors }) => tensors.length);
  expect(sizes(1).every((count) => count === 1)).toBe(true);
  expect(sizes(1e9)).toEqual([content.tensors.length]);
  const limit = 100_000;
  for (const file of splitFiles(content, { maxBytes: limit })) {
    if (file.tensors.length > 1) {
      expect(newFileBytes({ ...file, metadata: [] })).toBeLessThan(limit + 2000);
    }
  }
});

test("each expert of a stack is quantised with its own importance", () => {
  const name = "blk.0.ffn_up_exps.weight";
  const cols = 256;
  const importance = new Float32Array(4 * cols).map((_, i) => 1 + ((i * 31) % 97));
  const file = newFile(join(folder, "experts.gguf"), new Map([[name, importance]]));
  finish([file]);
  const input = readGguf(source);
  const floats = readTensorFloats(input, input.tensors.get(name)!);
  const written = readGguf(file.path);
  const bytes = readTensorBytes(written, written.tensors.get(name)!);
  const perExpert = floats.length / 4;
  const expected = [0, 1, 2, 3].map((expert) => {
    const values = floats.slice(expert * perExpert, (expert + 1) * perExpert);
    const own = importance.slice(expert * cols, (expert + 1) * cols);
    const content = new Uint8Array(values.buffer);
    return quantizeMatrix("q4_k", { type: "f32", content, cols }, { importance: own });
  });
  expect(Buffer.compare(bytes, Buffer.concat(expected))).toBe(0);
});

test("quantised weights are expanded and quantised again", () => {
  const first = newFile(join(folder, "first.gguf"));
  finish([first]);
  const input = readGguf(first.path);
  const tensors = Array.from(input.tensors.values(), (tensor) => {
    const type = tensor.type === "q4_k" ? ("q8_0" as const) : tensor.type;
    return { source: tensor, type, importance: undefined };
  });
  const path = join(folder, "second.gguf");
  finish([{ path, metadata: withoutSplit(input.values), tensors }], first.path);
  const output = readGguf(path);
  const floats = (file: typeof input) =>
    readTensorFloats(file, file.tensors.get("blk.0.attn_q.weight")!);
  const before = floats(input);
  const largest = before.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const after = floats(output);
  after.forEach((value, index) => {
    expect(Math.abs(value - before[index]!)).toBeLessThan(largest / 127);
  });
});
