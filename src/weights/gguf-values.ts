// Metadata values of a GGUF file: the thirteen value types and arrays of them.
import type { GgufCursor } from "./gguf-cursor.ts";
import { ggufLimits } from "./gguf-limits.ts";
import type { MetadataValue, NumericArray, StringArray } from "./metadata.ts";
import { decodeLossless, decodeStrict, PackedStrings } from "./packed-strings.ts";

/** Names of the value types; the index is the number in the file. */
export const ggufValueTypes = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "string",
  "array",
  "u64",
  "i64",
  "f64",
] as const;

export type GgufValueType = (typeof ggufValueTypes)[number];
export type GgufNumberType = Exclude<GgufValueType, "bool" | "string" | "array">;

/** What an array costs at least per element in the file: bounds a count before allocation. */
const elementBytes: Record<GgufNumberType | "bool", number> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  u64: 8,
  i64: 8,
  f64: 8,
};

/** Reads all key-value pairs; keys are unique. */
export function readPairs(cursor: GgufCursor, numPairs: number): Map<string, MetadataValue> {
  const metadata = new Map<string, MetadataValue>();
  const reader = new ValueReader(cursor);
  for (let index = 0; index < numPairs; index++) {
    const offset = cursor.position;
    const bytes = cursor.stringBytes(`key of metadata pair ${index}`, ggufLimits.keyBytes);
    const key = decodeStrict(bytes);
    if (key === undefined || key === "") {
      const problem = key === "" ? "is empty" : "is not valid UTF-8";
      throw cursor.error(`key of metadata pair ${index}`, problem, { offset });
    }
    if (metadata.has(key)) {
      throw cursor.error(`metadata key ${quote(key)}`, "appears twice", { offset });
    }
    metadata.set(key, reader.read(`metadata key ${quote(key)}`));
  }
  return metadata;
}

/** A name from the file as a message may show it: quoted, control characters escaped, short. */
export function quote(name: string): string {
  const shown = name.length > 80 ? `${name.slice(0, 80)}…` : name;
  return `'${JSON.stringify(shown).slice(1, -1)}'`;
}

class ValueReader {
  readonly #cursor: GgufCursor;
  #numNestedArrays = 0;

  constructor(cursor: GgufCursor) {
    this.#cursor = cursor;
  }

  read(field: string): MetadataValue {
    const type = this.#type(field);
    if (type === "array") return this.#array(field, 1);
    if (type === "string") {
      return decodeLossless(this.#cursor.stringBytes(field, ggufLimits.stringBytes));
    }
    if (type === "bool") return this.#boolean(field);
    return this.#number(type, field);
  }

  #type(field: string): GgufValueType {
    const offset = this.#cursor.position;
    const number = this.#cursor.u32(`value type of ${field}`);
    const type = ggufValueTypes[number];
    if (type === undefined) {
      throw this.#cursor.error(
        `value type of ${field}`,
        `${number} is not a known type (0 to 12)`,
        {
          offset,
        },
      );
    }
    return type;
  }

  #boolean(field: string): boolean {
    const offset = this.#cursor.position;
    const byte = this.#cursor.take(1, field)[0]!;
    if (byte > 1) throw this.#cursor.error(field, `${byte} is not a boolean (0 or 1)`, { offset });
    return byte === 1;
  }

  #number(type: GgufNumberType, field: string): number | bigint {
    const cursor = this.#cursor;
    cursor.need(elementBytes[type], field);
    const { view, position } = cursor;
    cursor.position += elementBytes[type];
    switch (type) {
      case "u8":
        return view.getUint8(position);
      case "i8":
        return view.getInt8(position);
      case "u16":
        return view.getUint16(position, true);
      case "i16":
        return view.getInt16(position, true);
      case "u32":
        return view.getUint32(position, true);
      case "i32":
        return view.getInt32(position, true);
      case "f32":
        return view.getFloat32(position, true);
      case "f64":
        return view.getFloat64(position, true);
      case "u64":
        return exactNumber(view.getBigUint64(position, true));
      case "i64":
        return exactNumber(view.getBigInt64(position, true));
    }
  }

  #array(field: string, depth: number): MetadataValue {
    const type = this.#type(`elements of ${field}`);
    if (type === "string") return this.#strings(field);
    if (type === "array") return this.#nested(field, depth);
    const limit = type === "bool" ? ggufLimits.booleanArrayLength : ggufLimits.arrayLength;
    const count = this.#arrayLength(field, limit, elementBytes[type]);
    if (type !== "bool") {
      // A copy, because a typed array must lie aligned to its elements.
      const bytes = this.#cursor.take(count * elementBytes[type], field).slice();
      return numericArray(type, bytes.buffer);
    }
    const booleans: boolean[] = [];
    for (let index = 0; index < count; index++) {
      booleans.push(this.#boolean(`${field}[${index}]`));
    }
    return booleans;
  }

  /** An element count that is within `limit` and that the rest of the file can hold. */
  #arrayLength(field: string, limit: number, minElementBytes: number): number {
    const offset = this.#cursor.position;
    const count = this.#cursor.count(`length of ${field}`, limit);
    const missing = count * minElementBytes - this.#cursor.remaining;
    if (missing > 0) {
      throw this.#cursor.error(
        `length of ${field}`,
        `${count} elements do not fit in the file; at least ${missing} bytes are missing`,
        { offset, hint: "the download or copy is incomplete or damaged: download it again" },
      );
    }
    return count;
  }

  #nested(field: string, depth: number): MetadataValue[] {
    const offset = this.#cursor.position;
    if (depth >= ggufLimits.arrayDepth) {
      const problem = `arrays are nested more than ${ggufLimits.arrayDepth} deep`;
      throw this.#cursor.error(field, problem, { offset });
    }
    const perArray = 4 + this.#cursor.countBytes;
    const left = ggufLimits.numNestedArrays - this.#numNestedArrays;
    const count = this.#arrayLength(field, left, perArray);
    this.#numNestedArrays += count;
    const values: MetadataValue[] = [];
    for (let index = 0; index < count; index++) {
      values.push(this.#array(`${field}[${index}]`, depth + 1));
    }
    return values;
  }

  /** Finds where each string begins; nothing is decoded. */
  #strings(field: string): StringArray {
    const cursor = this.#cursor;
    const gapBytes = cursor.countBytes;
    const count = this.#arrayLength(field, ggufLimits.arrayLength, gapBytes);
    const starts = new Uint32Array(count + 1);
    const first = cursor.position;
    let index = 0;
    while (index < count) {
      index = this.#loadedStrings(starts, index, first);
      if (index === count) break;
      // The window ends in this string, or its length is wrong: the checked way.
      const numBytes = cursor.count(`length of ${field}[${index}]`, ggufLimits.stringBytes);
      starts[index] = cursor.position - first;
      cursor.take(numBytes, `${field}[${index}]`);
      index += 1;
    }
    starts[count] = cursor.position - first + gapBytes;
    // Only now: the window may have been replaced while it grew.
    return new PackedStrings(cursor.bytes.subarray(first, cursor.position), starts, gapBytes);
  }

  /**
   * The fast path: steps over the strings from `index` on that lie wholly inside the window and
   * returns the index of the first that does not. Called once per window, not once per string.
   */
  #loadedStrings(starts: Uint32Array, index: number, first: number): number {
    const cursor = this.#cursor;
    const { view, countBytes } = cursor;
    const numLoaded = view.byteLength;
    const count = starts.length - 1;
    let position = cursor.position;
    while (index < count && position + countBytes <= numLoaded) {
      const numBytes = view.getUint32(position, true);
      if (countBytes === 8 && view.getUint32(position + 4, true) !== 0) break;
      const start = position + countBytes;
      if (start + numBytes > numLoaded || numBytes > ggufLimits.stringBytes) break;
      starts[index] = start - first;
      position = start + numBytes;
      index += 1;
    }
    cursor.position = position;
    return index;
  }
}

/** Integers beyond 2^53 stay bigint. */
function exactNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function numericArray(type: GgufNumberType, buffer: ArrayBuffer): NumericArray {
  switch (type) {
    case "u8":
      return new Uint8Array(buffer);
    case "i8":
      return new Int8Array(buffer);
    case "u16":
      return new Uint16Array(buffer);
    case "i16":
      return new Int16Array(buffer);
    case "u32":
      return new Uint32Array(buffer);
    case "i32":
      return new Int32Array(buffer);
    case "f32":
      return new Float32Array(buffer);
    case "f64":
      return new Float64Array(buffer);
    case "u64":
      return new BigUint64Array(buffer);
    case "i64":
      return new BigInt64Array(buffer);
  }
}
