// Writes GGUF version 3: header from typed metadata values, tensors streamed in chunks so that a
// file may be larger than memory. Values keep the exact types that the caller names.
import { assert } from "../core/errors.ts";
import { SequentialFile } from "../core/output-file.ts";
import { defaultAlignment, ggufLimits } from "./gguf-limits.ts";
import {
  type GgufArray,
  type GgufNumberType,
  type GgufValue,
  type GgufValueType,
  ggufNumbers,
  ggufValueTypes,
} from "./gguf-types.ts";
import type { StringArray } from "./metadata.ts";
import { encodeLossless } from "./packed-strings.ts";
import { isGgufType, type QuantType, quantTypeInfo, tensorBytes } from "./quant-types.ts";

export interface GgufTensorSource {
  readonly name: string;
  readonly type: QuantType;
  /** Outermost first. */
  readonly shape: readonly number[];
  /** The bytes, at once or in chunks made while writing; together exactly the tensor's. */
  readonly content: Uint8Array | (() => Iterable<Uint8Array>);
}

export interface GgufContent {
  /** `general.alignment`, where it is given as u32, is obeyed. */
  readonly metadata: Iterable<readonly [string, GgufValue]>;
  readonly tensors: Iterable<GgufTensorSource>;
}

/** Writes the file; nobody ever meets half of it. */
export function writeGguf(path: string, content: GgufContent): void {
  using file = new SequentialFile(path);
  for (const chunk of ggufChunks(content)) file.write(chunk);
  file.place();
}

/** The whole file in memory, for small ones. */
export function encodeGguf(content: GgufContent): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat([...ggufChunks(content)]));
}

/** The bytes of the file in order. */
function* ggufChunks(content: GgufContent): Generator<Uint8Array> {
  const tensors = [...content.tensors];
  const { header, offsets, totalBytes } = layOutGguf([...content.metadata], tensors);
  yield header;
  for (const [index, tensor] of tensors.entries()) {
    const wanted = tensorBytes(tensor.type, tensor.shape);
    const chunks = typeof tensor.content === "function" ? tensor.content() : [tensor.content];
    let written = 0;
    for (const chunk of chunks) {
      written += chunk.length;
      yield chunk;
    }
    assert(written === wanted, `tensor '${tensor.name}': ${written} bytes given, not ${wanted}`);
    yield new Uint8Array((offsets[index + 1] ?? totalBytes) - offsets[index]! - wanted);
  }
}

export interface GgufLayout {
  /** Everything before the first tensor. */
  readonly header: Uint8Array;
  /** Where each tensor begins, in bytes from the file's start. */
  readonly offsets: readonly number[];
  readonly totalBytes: number;
}

/** The header of a file, and where its tensors will lie. */
export function layOutGguf(
  metadata: readonly (readonly [string, GgufValue])[],
  tensors: readonly Omit<GgufTensorSource, "content">[],
): GgufLayout {
  assertUnique(metadata.map(([key]) => key));
  assertUnique(tensors.map(({ name }) => name));
  const alignment = alignmentOf(metadata);
  let end = 0;
  const relative = tensors.map(({ type, shape }) => {
    const offset = end;
    end += tensorBytes(type, shape);
    end += padding(end, alignment);
    return offset;
  });
  const header = headerBytes(metadata, tensors, relative, alignment);
  const offsets = relative.map((offset) => header.length + offset);
  return { header, offsets, totalBytes: header.length + end };
}

function assertUnique(names: readonly string[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    assert(name !== "" && !seen.has(name), `'${name}' is empty or appears twice`);
    seen.add(name);
  }
}

function alignmentOf(metadata: readonly (readonly [string, GgufValue])[]): number {
  const value = metadata.find(([key]) => key === "general.alignment")?.[1];
  if (value === undefined) return defaultAlignment;
  const alignment = value.type === "u32" ? Number(value.value) : 0;
  const { minAlignment, maxAlignment } = ggufLimits;
  assert(
    alignment >= minAlignment &&
      alignment <= maxAlignment &&
      Number.isInteger(Math.log2(alignment)),
    `general.alignment is a u32 power of two from ${minAlignment} to ${maxAlignment}`,
  );
  return alignment;
}

/** Bytes from `position` to the next multiple of `alignment`. */
function padding(position: number, alignment: number): number {
  return (alignment - (position % alignment)) % alignment;
}

function headerBytes(
  metadata: readonly (readonly [string, GgufValue])[],
  tensors: readonly Omit<GgufTensorSource, "content">[],
  offsets: readonly number[],
  alignment: number,
): Uint8Array {
  const writer = new HeaderWriter();
  writer.bytes(new TextEncoder().encode("GGUF"));
  writer.number("u32", 3);
  writer.number("u64", tensors.length);
  writer.number("u64", metadata.length);
  for (const [key, value] of metadata) {
    writer.string(key);
    writer.type(value.type);
    writer.value(value);
  }
  for (const [index, { name, type, shape }] of tensors.entries()) {
    assert(isGgufType(quantTypeInfo(type)), `GGUF has no ${type} (tensor ${name})`);
    writer.string(name);
    writer.number("u32", shape.length);
    for (const dimension of shape.toReversed()) writer.number("u64", dimension);
    writer.number("u32", quantTypeInfo(type).ggmlType);
    writer.number("u64", offsets[index]!);
  }
  writer.bytes(new Uint8Array(padding(writer.length, alignment)));
  return writer.written();
}

class HeaderWriter {
  #buffer = new Uint8Array(4096);
  #view = new DataView(this.#buffer.buffer);
  length = 0;

  written(): Uint8Array {
    return this.#buffer.subarray(0, this.length);
  }

  #reserve(numBytes: number): number {
    const start = this.length;
    this.length += numBytes;
    if (this.length > this.#buffer.length) {
      const next = new Uint8Array(Math.max(this.length, this.#buffer.length * 2));
      next.set(this.#buffer);
      this.#buffer = next;
      this.#view = new DataView(next.buffer);
    }
    return start;
  }

  bytes(bytes: Uint8Array): void {
    const start = this.#reserve(bytes.length);
    this.#buffer.set(bytes, start);
  }

  string(text: string): void {
    const bytes = encodeLossless(text);
    assert(bytes !== undefined, `'${text}' has a lone surrogate and no bytes in UTF-8`);
    this.sized(bytes);
  }

  /** A string given as bytes: length, then bytes. */
  sized(bytes: Uint8Array): void {
    this.number("u64", bytes.length);
    this.bytes(bytes);
  }

  type(type: GgufValueType): void {
    this.number("u32", ggufValueTypes.indexOf(type));
  }

  value(value: GgufValue): void {
    if (value.type === "array") this.array(value);
    else if (value.type === "string") this.string(value.value);
    else if (value.type === "bool") this.bytes(Uint8Array.of(value.value ? 1 : 0));
    else this.number(value.type, value.value);
  }

  array(array: GgufArray): void {
    this.type(array.of);
    this.number("u64", array.value.length);
    switch (array.of) {
      case "array":
        for (const element of array.value) this.array(element);
        return;
      case "bool":
        for (const element of array.value) this.bytes(Uint8Array.of(element ? 1 : 0));
        return;
      case "string":
        if ("bytesAt" in array.value) this.#strings(array.value);
        else for (const element of array.value) this.string(element);
        return;
      default:
        for (const element of array.value) this.number(array.of, element);
    }
  }

  #strings(strings: StringArray): void {
    for (let index = 0; index < strings.length; index++) this.sized(strings.bytesAt(index));
  }

  number(type: GgufNumberType, value: number | bigint): void {
    const store = ggufNumbers[type];
    const start = this.#reserve(store.bytes);
    store.set(this.#view, start, value);
    // The setters wrap and round silently; a value that does not fit is the caller's mistake.
    const exact =
      type === "f32" || type === "f64" || BigInt(store.get(this.#view, start)) === toInteger(value);
    assert(exact, `${value} does not fit in ${type}`);
  }
}

/** An integer as bigint; -1/3 and the like have none and are refused where they are stored. */
function toInteger(value: number | bigint): bigint | undefined {
  return typeof value === "bigint" || Number.isInteger(value) ? BigInt(value) : undefined;
}
