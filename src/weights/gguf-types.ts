// The value types of GGUF metadata: their numbers in the file, values with their types, and how
// each number type is read, written and gathered in a typed array. Shared by reader and writer.
import type { NumericArray, StringArray } from "./metadata.ts";

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

/** A metadata value with the exact type that it has in the file. */
export type GgufValue =
  | { readonly type: GgufNumberType; readonly value: number | bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | GgufArray;

export type GgufArray =
  | {
      readonly type: "array";
      readonly of: GgufNumberType;
      readonly value: NumericArray | readonly (number | bigint)[];
    }
  | { readonly type: "array"; readonly of: "bool"; readonly value: readonly boolean[] }
  | {
      readonly type: "array";
      readonly of: "string";
      readonly value: readonly string[] | StringArray;
    }
  | { readonly type: "array"; readonly of: "array"; readonly value: readonly GgufArray[] };

export interface GgufNumber {
  readonly bytes: number;
  readonly get: (view: DataView, at: number) => number | bigint;
  readonly set: (view: DataView, at: number, value: number | bigint) => void;
  /** A typed array over the whole buffer. */
  readonly toArray: (buffer: ArrayBuffer) => NumericArray;
}

export const ggufNumbers: Record<GgufNumberType, GgufNumber> = {
  u8: {
    bytes: 1,
    get: (view, at) => view.getUint8(at),
    set: (view, at, value) => view.setUint8(at, Number(value)),
    toArray: (buffer) => new Uint8Array(buffer),
  },
  i8: {
    bytes: 1,
    get: (view, at) => view.getInt8(at),
    set: (view, at, value) => view.setInt8(at, Number(value)),
    toArray: (buffer) => new Int8Array(buffer),
  },
  u16: {
    bytes: 2,
    get: (view, at) => view.getUint16(at, true),
    set: (view, at, value) => view.setUint16(at, Number(value), true),
    toArray: (buffer) => new Uint16Array(buffer),
  },
  i16: {
    bytes: 2,
    get: (view, at) => view.getInt16(at, true),
    set: (view, at, value) => view.setInt16(at, Number(value), true),
    toArray: (buffer) => new Int16Array(buffer),
  },
  u32: {
    bytes: 4,
    get: (view, at) => view.getUint32(at, true),
    set: (view, at, value) => view.setUint32(at, Number(value), true),
    toArray: (buffer) => new Uint32Array(buffer),
  },
  i32: {
    bytes: 4,
    get: (view, at) => view.getInt32(at, true),
    set: (view, at, value) => view.setInt32(at, Number(value), true),
    toArray: (buffer) => new Int32Array(buffer),
  },
  f32: {
    bytes: 4,
    get: (view, at) => view.getFloat32(at, true),
    set: (view, at, value) => view.setFloat32(at, Number(value), true),
    toArray: (buffer) => new Float32Array(buffer),
  },
  u64: {
    bytes: 8,
    get: (view, at) => view.getBigUint64(at, true),
    set: (view, at, value) => view.setBigUint64(at, BigInt(value), true),
    toArray: (buffer) => new BigUint64Array(buffer),
  },
  i64: {
    bytes: 8,
    get: (view, at) => view.getBigInt64(at, true),
    set: (view, at, value) => view.setBigInt64(at, BigInt(value), true),
    toArray: (buffer) => new BigInt64Array(buffer),
  },
  f64: {
    bytes: 8,
    get: (view, at) => view.getFloat64(at, true),
    set: (view, at, value) => view.setFloat64(at, Number(value), true),
    toArray: (buffer) => new Float64Array(buffer),
  },
};
