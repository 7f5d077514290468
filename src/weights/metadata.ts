// The metadata of a model file as every reader sees it: GGUF key-value pairs and typed getters.
// Who parses the file is `gguf.ts`; who understands the keys is `models/model-config.ts`.
import { TinferError } from "../core/errors.ts";

/** Strings that are decoded one by one when asked for: vocabularies are large. */
export interface StringArray {
  readonly length: number;
  /** Bytes that are not UTF-8 appear as lone surrogates U+DC80 to U+DCFF: none is lost. */
  at(index: number): string;
  /** The UTF-8 bytes of one element; a view that must not be written. */
  bytesAt(index: number): Uint8Array;
  toArray(): string[];
}

/** Numbers up to 64 bits: integers beyond 2^53 stay bigint. Numeric arrays are typed arrays. */
export type MetadataValue =
  | number
  | bigint
  | boolean
  | string
  | StringArray
  | NumericArray
  | readonly boolean[]
  | readonly MetadataValue[];

export type NumericArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

export type Metadata = ReadonlyMap<string, MetadataValue>;

export function isStringArray(value: MetadataValue | undefined): value is StringArray {
  return typeof value === "object" && value !== null && "bytesAt" in value;
}

function wrongType(key: string, wanted: string): TinferError {
  return new TinferError("invalidFile", `metadata key '${key}' is not ${wanted}`, {
    hint: "the file was written by a faulty converter; convert or download it again",
  });
}

/** The number under `key`, or `fallback` when the key is absent; throws on another type. */
export function getNumber(metadata: Metadata, key: string): number | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== "number") throw wrongType(key, "a number");
  return value;
}

export function getBoolean(metadata: Metadata, key: string): boolean | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== "boolean") throw wrongType(key, "a boolean");
  return value;
}

export function getString(metadata: Metadata, key: string): string | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== "string") throw wrongType(key, "a string");
  return value;
}

export function getStrings(metadata: Metadata, key: string): StringArray | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (!isStringArray(value)) throw wrongType(key, "an array of strings");
  return value;
}

export function getNumbers(metadata: Metadata, key: string): NumericArray | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (!ArrayBuffer.isView(value)) throw wrongType(key, "an array of numbers");
  return value as NumericArray;
}
