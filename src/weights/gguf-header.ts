// The header of one GGUF file: magic, version, metadata and tensor table, written for hostile
// input. Pure: bytes come from a ByteSource. Opening files and joining shards is in `gguf.ts`.
import { fileKindOf } from "./file-kind.ts";
import { type ByteSource, GgufCursor } from "./gguf-cursor.ts";
import { defaultAlignment, ggufLimits } from "./gguf-limits.ts";
import type { GgufValue } from "./gguf-types.ts";
import { plainMetadata, quote, readPairs } from "./gguf-values.ts";
import type { Metadata } from "./metadata.ts";
import { decodeStrict } from "./packed-strings.ts";
import {
  isGgufType,
  type QuantType,
  type QuantTypeInfo,
  quantTypeOf,
  removedTypeName,
  tensorBytes,
} from "./quant-types.ts";

export interface TensorInfo {
  readonly name: string;
  readonly type: QuantType;
  /** Outermost first: the dimensions of the file reversed. */
  readonly shape: readonly number[];
  /** Which of the model's files holds it. */
  readonly fileIndex: number;
  /** Bytes from that file's start. */
  readonly offset: number;
  readonly bytes: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly alignment: number;
  readonly metadata: Metadata;
  /** The same with the types of the file, for who writes it again. */
  readonly values: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Where the tensors begin, in bytes from the file's start. */
  readonly tensorsOffset: number;
}

const magic = 0x46554747; // "GGUF", little endian

/** Reads and checks everything before the tensor bytes; `fileIndex` marks the tensors. */
export function parseGgufHeader(source: ByteSource, fileIndex = 0): GgufHeader {
  const cursor = new GgufCursor(source);
  checkMagic(cursor);
  const version = readVersion(cursor);
  cursor.countBytes = version === 1 ? 4 : 8;
  const numTensors = cursor.count("number of tensors", ggufLimits.numTensors);
  const numPairs = cursor.count("number of metadata pairs", ggufLimits.numPairs);
  const values = readPairs(cursor, numPairs);
  const metadata = plainMetadata(values);
  const alignment = readAlignment(cursor, metadata);
  const table = readTensorTable(cursor, numTensors, alignment);
  const tensorsOffset = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = placeTensors(cursor, table, tensorsOffset, fileIndex);
  return { version, alignment, metadata, values, tensors, tensorsOffset };
}

function checkMagic(cursor: GgufCursor): void {
  const { source } = cursor;
  if (source.byteLength === 0) {
    throw cursor.error("magic", "the file is empty", { hint: "download it again" });
  }
  const head = new Uint8Array(Math.min(64, source.byteLength));
  const numRead = source.read(head, 0);
  if (numRead >= 4 && new DataView(head.buffer).getUint32(0, true) === magic) {
    cursor.position = 4;
    return;
  }
  const kind = fileKindOf(head.subarray(0, numRead));
  const bytes = Array.from(head.subarray(0, 4), (byte) => byte.toString(16).padStart(2, "0"));
  throw cursor.error(
    "magic",
    kind === undefined
      ? `not a GGUF file: it begins with ${bytes.join(" ")} instead of "GGUF"`
      : `not a GGUF file: it is ${kind.what}`,
    { hint: kind?.hint ?? "give the path of a .gguf file, or download it again" },
  );
}

function readVersion(cursor: GgufCursor): number {
  const version = cursor.u32("version");
  if (version >= 1 && version <= 3) return version;
  // A small number in the high byte is a big endian file read the other way round.
  if (version !== 0 && version % 2 ** 16 === 0) {
    throw cursor.error("version", "the file is big endian; tinfer reads little endian files", {
      offset: 4,
      code: "unsupported",
      hint: "download the little endian file, or convert it with gguf-py's convert_endian",
    });
  }
  throw cursor.error("version", `GGUF version ${version} is not supported (1, 2 and 3 are)`, {
    offset: 4,
    code: "unsupported",
    hint: "download the model as GGUF version 3, or use a newer tinfer",
  });
}

function readAlignment(cursor: GgufCursor, metadata: Metadata): number {
  const value = metadata.get("general.alignment");
  if (value === undefined) return defaultAlignment;
  const { minAlignment, maxAlignment } = ggufLimits;
  const isPowerOfTwo = typeof value === "number" && Number.isInteger(Math.log2(value));
  if (!isPowerOfTwo || value < minAlignment || value > maxAlignment) {
    const shown = typeof value === "number" ? value : "value";
    throw cursor.error(
      "metadata key 'general.alignment'",
      `${shown} is not a power of two from ${minAlignment} to ${maxAlignment}`,
    );
  }
  return value;
}

/** A tensor as the table has it: its offset counts from where the tensors begin. */
interface TableEntry {
  readonly name: string;
  readonly type: QuantTypeInfo;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
  /** Where its entry begins in the file, for messages. */
  readonly entryOffset: number;
}

function readTensorTable(cursor: GgufCursor, numTensors: number, alignment: number): TableEntry[] {
  const entries: TableEntry[] = [];
  const names = new Set<string>();
  for (let index = 0; index < numTensors; index++) {
    const entry = readTensorEntry(cursor, index, alignment);
    if (names.has(entry.name)) {
      throw cursor.error(`tensor ${quote(entry.name)}`, "appears twice", {
        offset: entry.entryOffset,
      });
    }
    names.add(entry.name);
    entries.push(entry);
  }
  return entries;
}

function readTensorEntry(cursor: GgufCursor, index: number, alignment: number): TableEntry {
  const entryOffset = cursor.position;
  const nameField = `name of tensor ${index}`;
  const name = decodeStrict(cursor.stringBytes(nameField, ggufLimits.tensorNameBytes));
  if (name === undefined || name === "") {
    const problem = name === "" ? "is empty" : "is not valid UTF-8";
    throw cursor.error(nameField, problem, { offset: entryOffset });
  }
  const field = `tensor ${quote(name)}`;
  const shape = readShape(cursor, field);
  const type = readTensorType(cursor, field);
  const rowLen = shape.at(-1) ?? 1;
  if (rowLen % type.quantBlockSize !== 0) {
    throw cursor.error(
      field,
      `rows of ${rowLen} elements are not a multiple of the ${type.quantBlockSize} ` +
        `that a quant block of ${type.name} holds`,
      { offset: entryOffset },
    );
  }
  const offsetPosition = cursor.position;
  const offset = cursor.u64(`offset of ${field}`);
  if (offset > Number.MAX_SAFE_INTEGER || Number(offset) % alignment !== 0) {
    const problem = `${offset} is not a multiple of the alignment ${alignment} below 2^53`;
    throw cursor.error(`offset of ${field}`, problem, { offset: offsetPosition });
  }
  const bytes = tensorBytes(type.name, shape);
  return { name, type, shape, offset: Number(offset), bytes, entryOffset };
}

/** The dimensions, outermost first; their product is bounded. */
function readShape(cursor: GgufCursor, field: string): number[] {
  const offset = cursor.position;
  const numDimensions = cursor.u32(`number of dimensions of ${field}`);
  if (numDimensions > ggufLimits.numDimensions) {
    const problem = `${numDimensions} is more than the limit of ${ggufLimits.numDimensions}`;
    throw cursor.error(`number of dimensions of ${field}`, problem, { offset });
  }
  const shape: number[] = [];
  let numElements = 1;
  for (let index = 0; index < numDimensions; index++) {
    const dimensionOffset = cursor.position;
    const dimensionField = `dimension ${index} of ${field}`;
    const dimension = cursor.count(dimensionField, ggufLimits.tensorElements);
    if (dimension === 0) {
      throw cursor.error(dimensionField, "is 0", { offset: dimensionOffset });
    }
    // Both factors are at most 2^49: the product is far below overflow and compares correctly.
    numElements *= dimension;
    if (numElements > ggufLimits.tensorElements) {
      const problem = `the dimensions multiply to more than ${ggufLimits.tensorElements} elements`;
      throw cursor.error(field, problem, { offset: dimensionOffset });
    }
    shape.push(dimension);
  }
  return shape.reverse();
}

function readTensorType(cursor: GgufCursor, field: string): QuantTypeInfo {
  const offset = cursor.position;
  const ggmlType = cursor.u32(`type of ${field}`);
  const type = quantTypeOf(ggmlType);
  if (type !== undefined && isGgufType(type)) return type;
  const removed = removedTypeName(ggmlType);
  throw cursor.error(
    `type of ${field}`,
    removed === undefined
      ? `${ggmlType} is not a tensor type that tinfer knows`
      : `${removed} (type ${ggmlType}) was removed from GGUF`,
    {
      offset,
      code: "unsupported",
      hint:
        removed === undefined
          ? "the file is damaged or newer than this tinfer: take another quantisation, such as Q4_K_M"
          : "download the model in a current quantisation, such as Q4_0 or Q4_K_M",
    },
  );
}

/** Checks that the tensors lie inside the file and apart, and gives them absolute offsets. */
function placeTensors(
  cursor: GgufCursor,
  entries: readonly TableEntry[],
  tensorsOffset: number,
  fileIndex: number,
): Map<string, TensorInfo> {
  const byOffset = [...entries].sort((a, b) => a.offset - b.offset);
  let previous: TableEntry | undefined;
  for (const entry of byOffset) {
    if (previous !== undefined && entry.offset < previous.offset + previous.bytes) {
      const problem = `overlaps tensor ${quote(previous.name)}`;
      throw cursor.error(`tensor ${quote(entry.name)}`, problem, { offset: entry.entryOffset });
    }
    previous = entry;
  }
  checkExtent(cursor, previous, tensorsOffset);
  const tensors = new Map<string, TensorInfo>();
  for (const { name, type, shape, offset, bytes } of entries) {
    const absolute = tensorsOffset + offset;
    tensors.set(name, { name, type: type.name, shape, fileIndex, offset: absolute, bytes });
  }
  return tensors;
}

/** `last` is the tensor that ends last, the tensors being apart. */
function checkExtent(
  cursor: GgufCursor,
  last: TableEntry | undefined,
  tensorsOffset: number,
): void {
  if (last === undefined) return;
  const { byteLength } = cursor.source;
  const end = tensorsOffset + last.offset + last.bytes;
  if (end <= byteLength) return;
  throw cursor.error(
    `tensor ${quote(last.name)}`,
    `the file is truncated: it has ${byteLength} bytes, its tensors need ${end}; ` +
      `${end - byteLength} bytes are missing`,
    { offset: last.entryOffset, hint: "the download or copy is incomplete: download it again" },
  );
}
