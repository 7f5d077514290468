// Metadata values of a GGUF file: the thirteen value types and arrays of them.
import type { GgufCursor } from "./gguf-cursor.ts";
import { ggufLimits } from "./gguf-limits.ts";
import {
  type GgufArray,
  type GgufNumberType,
  type GgufValue,
  type GgufValueType,
  ggufNumbers,
  ggufValueTypes,
} from "./gguf-types.ts";
import type { MetadataValue, StringArray } from "./metadata.ts";
import { decodeLossless, decodeStrict, PackedStrings } from "./packed-strings.ts";

/** Reads all key-value pairs; keys are unique. */
export function readPairs(cursor: GgufCursor, numPairs: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
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

/** The values without the types that they have in the file. */
export function plainMetadata(values: ReadonlyMap<string, GgufValue>): Map<string, MetadataValue> {
  return new Map(Array.from(values, ([key, value]) => [key, plainValue(value)]));
}

function plainValue(value: GgufValue): MetadataValue {
  if (value.type === "array" && value.of === "array") return value.value.map(plainValue);
  return value.value as MetadataValue;
}

/** Control characters that JSON leaves as they are, and those that reverse the line. */
const unprintable = /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** A name from the file as a message may show it: quoted, control characters escaped, short. */
export function quote(name: string): string {
  const shown = name.length > 80 ? `${name.slice(0, 80)}…` : name;
  const escaped = JSON.stringify(shown)
    .slice(1, -1)
    .replace(unprintable, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return `'${escaped}'`;
}

class ValueReader {
  readonly #cursor: GgufCursor;
  #numNestedArrays = 0;

  constructor(cursor: GgufCursor) {
    this.#cursor = cursor;
  }

  read(field: string): GgufValue {
    const type = this.#type(field);
    if (type === "array") return this.#array(field, 1);
    if (type === "string") {
      const bytes = this.#cursor.stringBytes(field, ggufLimits.stringBytes);
      return { type, value: decodeLossless(bytes) };
    }
    if (type === "bool") return { type, value: this.#boolean(field) };
    return { type, value: this.#number(type, field) };
  }

  #type(field: string): GgufValueType {
    const offset = this.#cursor.position;
    const number = this.#cursor.u32(`value type of ${field}`);
    const type = ggufValueTypes[number];
    if (type === undefined) {
      const problem = `${number} is not a known type (0 to ${ggufValueTypes.length - 1})`;
      throw this.#cursor.error(`value type of ${field}`, problem, { offset });
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
    const { bytes, get } = ggufNumbers[type];
    this.#cursor.need(bytes, field);
    const value = get(this.#cursor.view, this.#cursor.position);
    this.#cursor.position += bytes;
    return typeof value === "bigint" ? exactNumber(value) : value;
  }

  #array(field: string, depth: number): GgufArray {
    const of = this.#type(`elements of ${field}`);
    const type = "array";
    if (of === "string") return { type, of, value: this.#strings(field) };
    if (of === "array") return { type, of, value: this.#nested(field, depth) };
    if (of !== "bool") {
      const { bytes, toArray } = ggufNumbers[of];
      const count = this.#arrayLength(field, ggufLimits.arrayLength, bytes);
      // A copy, because a typed array must lie aligned to its elements.
      const value = toArray(this.#cursor.take(count * bytes, field).slice().buffer);
      return { type, of, value };
    }
    const count = this.#arrayLength(field, ggufLimits.booleanArrayLength, 1);
    const booleans: boolean[] = [];
    for (let index = 0; index < count; index++) {
      booleans.push(this.#boolean(`${field}[${index}]`));
    }
    return { type, of, value: booleans };
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

  #nested(field: string, depth: number): GgufArray[] {
    const offset = this.#cursor.position;
    if (depth >= ggufLimits.arrayDepth) {
      const problem = `arrays are nested more than ${ggufLimits.arrayDepth} deep`;
      throw this.#cursor.error(field, problem, { offset });
    }
    const perArray = 4 + this.#cursor.countBytes;
    const left = ggufLimits.numNestedArrays - this.#numNestedArrays;
    const count = this.#arrayLength(field, left, perArray);
    this.#numNestedArrays += count;
    const values: GgufArray[] = [];
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
    const { view, countBytes, numLoaded } = cursor;
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
