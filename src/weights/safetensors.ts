// The header of one safetensors file, written for hostile input: a u64 length, then JSON that says
// type, shape and byte range of each tensor. Folders of them are in `safetensors-folder.ts`.
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import { quote } from "./gguf-values.ts";

/** Every bound on what a file may claim, with its reason. */
const safetensorsLimits = {
  /** Bytes of the JSON header, as the format's own library limits it. */
  headerBytes: 100_000_000,
  /** Tensors of one file. Unmerged mixtures of experts reach 100k in all shards together. */
  numTensors: 2 ** 18,
  /** Characters of a tensor's name. */
  nameLen: 1_024,
  numDimensions: 8,
  /** Elements of one tensor: times 8 bytes this stays exact in a double (below 2^53). */
  tensorElements: 2 ** 49,
} as const;

/** Bits of one element by the format's names. */
const dtypeBits = {
  ...{ F64: 64, F32: 32, F16: 16, BF16: 16, F8_E4M3: 8, F8_E5M2: 8, F8_E8M0: 8 },
  ...{ F6_E2M3: 6, F6_E3M2: 6, F4: 4, C64: 64, BOOL: 8 },
  ...{ I64: 64, I32: 32, I16: 16, I8: 8, U64: 64, U32: 32, U16: 16, U8: 8 },
} as const;

export type SafeDtype = keyof typeof dtypeBits;

/** A tensor as the file names it. */
export interface SafeTensor {
  readonly name: string;
  readonly dtype: SafeDtype;
  /** Outermost first; empty for a single number. */
  readonly shape: readonly number[];
  readonly fileIndex: number;
  /** Bytes from the file's start. */
  readonly offset: number;
  readonly bytes: number;
}

export interface SafetensorsFile {
  readonly path: string;
  readonly fileBytes: number;
  readonly tensors: ReadonlyMap<string, SafeTensor>;
}

const downloadAgain = "the download or copy is incomplete or damaged: download it again";

function invalid(path: string, problem: string, hint = downloadAgain): TinferError {
  return new TinferError("invalidFile", `${path}: ${problem}`, { hint });
}

/** Reads and checks the header of the file at `path`; `fileIndex` marks the tensors. */
export function readSafetensors(path: string, fileIndex = 0): SafetensorsFile {
  const file = openRegular(path);
  try {
    const fileBytes = fstatSync(file).size;
    const headerBytes = readHeaderLength(path, file, fileBytes);
    const text = readText(path, file, headerBytes);
    const dataStart = 8 + headerBytes;
    const tensors = parseTensors(path, text, { fileIndex, dataStart, fileBytes });
    return { path, fileBytes, tensors };
  } finally {
    closeSync(file);
  }
}

function openRegular(path: string): number {
  try {
    // A pipe or device has no end that extents could be checked against, and may block.
    if (!statSync(path).isFile()) throw new Error("it is not a regular file");
    return openSync(path, "r");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    const reason = cause instanceof Error ? cause.message : String(cause);
    if (code === "ENOENT") {
      throw new TinferError("notFound", `${path}: there is no such file`, {
        hint: "download all files of the model into the same folder",
        cause,
      });
    }
    throw new TinferError("unreadable", `${path} cannot be read: ${reason}`, {
      hint: "check that this user may read the file",
      cause,
    });
  }
}

function readHeaderLength(path: string, file: number, fileBytes: number): number {
  const head = new Uint8Array(8);
  if (fileBytes < 8 || readSync(file, head, 0, 8, 0) < 8) {
    throw invalid(path, `header length: the file has ${fileBytes} bytes, its header needs 8`);
  }
  const length = new DataView(head.buffer).getBigUint64(0, true);
  if (length > BigInt(safetensorsLimits.headerBytes)) {
    const isPointer = Buffer.from(head).toString("latin1") === "version ";
    const most = safetensorsLimits.headerBytes;
    throw isPointer
      ? invalid(path, "a Git LFS pointer, not the file itself", "run `git lfs pull` in the folder")
      : invalid(path, `header length: ${length} bytes, at most ${most} are possible`);
  }
  if (8 + Number(length) > fileBytes) {
    const missing = 8 + Number(length) - fileBytes;
    throw invalid(path, `header: ${length} bytes do not fit in the file; ${missing} are missing`);
  }
  return Number(length);
}

function readText(path: string, file: number, bytes: number): string {
  const buffer = Buffer.allocUnsafe(bytes);
  for (let at = 0; at < bytes; ) {
    const step = readSync(file, buffer, at, bytes - at, 8 + at);
    if (step === 0) throw invalid(path, "header: the file became shorter while it was read");
    at += step;
  }
  return buffer.toString("utf8");
}

interface Extent {
  readonly fileIndex: number;
  /** Where tensor bytes begin, from the file's start. */
  readonly dataStart: number;
  readonly fileBytes: number;
}

function parseTensors(path: string, text: string, extent: Extent): Map<string, SafeTensor> {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw invalid(path, `header: it is not JSON (${reason})`);
  }
  if (!isObject(header)) throw invalid(path, "header: it is not a JSON object");
  const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  if (entries.length > safetensorsLimits.numTensors) {
    const most = safetensorsLimits.numTensors;
    throw invalid(path, `header: ${entries.length} tensors, at most ${most} are possible`);
  }
  const tensors = new Map<string, SafeTensor>();
  for (const [name, fields] of entries) tensors.set(name, parseTensor(path, name, fields, extent));
  checkRanges(path, [...tensors.values()], extent);
  return tensors;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function parseTensor(path: string, name: string, fields: unknown, extent: Extent): SafeTensor {
  const what = `tensor ${quote(name)}`;
  if (name === "" || name.length > safetensorsLimits.nameLen) {
    throw invalid(path, `${what}: its name has ${name.length} characters`);
  }
  if (!isObject(fields)) throw invalid(path, `${what}: its entry is not a JSON object`);
  const { dtype, shape, data_offsets: range } = fields;
  if (typeof dtype !== "string" || !Object.hasOwn(dtypeBits, dtype)) {
    const hint = "a newer format than this tinfer knows, or a damaged file";
    throw invalid(path, `${what}: dtype ${quote(String(dtype))} is not known`, hint);
  }
  const numElements = countElements(path, what, shape);
  if (!Array.isArray(range) || range.length !== 2 || !range.every(isCount)) {
    throw invalid(path, `${what}: data_offsets are not two whole numbers`);
  }
  const [start, end] = range as [number, number];
  const dataBytes = extent.fileBytes - extent.dataStart;
  if (start > end) throw invalid(path, `${what}: data_offsets [${start}, ${end}] are reversed`);
  if (end > dataBytes) {
    const missing = end - dataBytes;
    throw invalid(path, `${what}: data_offsets end past the file; ${missing} bytes are missing`);
  }
  const bytes = Math.ceil((numElements * dtypeBits[dtype as SafeDtype]) / 8);
  if (end - start !== bytes) {
    const sizes = `${end - start} bytes, but its shape and ${dtype} make ${bytes}`;
    throw invalid(path, `${what}: data_offsets hold ${sizes}`);
  }
  return {
    name,
    dtype: dtype as SafeDtype,
    shape: shape as number[],
    fileIndex: extent.fileIndex,
    offset: extent.dataStart + start,
    bytes,
  };
}

function countElements(path: string, what: string, shape: unknown): number {
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw invalid(path, `${what}: shape is not an array of whole numbers`);
  }
  if (shape.length > safetensorsLimits.numDimensions) {
    throw invalid(path, `${what}: shape has ${shape.length} dimensions`);
  }
  const count = shape.reduce((product, dimension) => product * dimension, 1);
  if (count <= safetensorsLimits.tensorElements) return count;
  throw invalid(path, `${what}: shape [${shape.join(", ")}] has too many elements`);
}

/** Every byte after the header belongs to exactly one tensor, as the format demands. */
function checkRanges(path: string, tensors: SafeTensor[], extent: Extent): void {
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let position = extent.dataStart;
  let before = "the header";
  for (const { name, offset, bytes } of tensors) {
    const both = `tensor ${quote(name)} and ${before}`;
    if (offset < position) throw invalid(path, `data_offsets: ${both} overlap`);
    if (offset > position) {
      throw invalid(path, `data_offsets: ${offset - position} bytes between ${both} are unused`);
    }
    position = offset + bytes;
    before = `tensor ${quote(name)}`;
  }
  if (position === extent.fileBytes) return;
  throw invalid(path, `${extent.fileBytes - position} bytes after ${before} are unused`);
}
