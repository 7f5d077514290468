// Small valid GGUF files in memory, and the pieces to build invalid ones; shared by the unit
// tests of the parser and its fuzzer.
import type { ByteSource } from "../../src/weights/gguf-cursor.ts";
import type { GgufValue } from "../../src/weights/gguf-types.ts";
import { encodeGguf } from "../../src/weights/gguf-writer.ts";
import {
  isGgufType,
  type QuantType,
  quantTypes,
  tensorBytes,
} from "../../src/weights/quant-types.ts";

/** Bytes as a file; `byteLength` beyond them reads as zeros, like the hole of a sparse file. */
export function memorySource(
  bytes: Uint8Array,
  name = "memory.gguf",
  byteLength = bytes.length,
): ByteSource {
  return {
    name,
    byteLength,
    read(target, offset) {
      const numRead = Math.min(target.length, byteLength - offset);
      target.subarray(0, numRead).fill(0);
      target.set(bytes.subarray(offset, offset + numRead));
      return numRead;
    },
  };
}

/** Every value type, arrays of each, nesting, and text that is not ASCII. */
export const allValues: readonly (readonly [string, GgufValue])[] = [
  ["general.architecture", { type: "string", value: "llama" }],
  ["general.name", { type: "string", value: "Größe 模型 🦙" }],
  ["t.u8", { type: "u8", value: 255 }],
  ["t.i8", { type: "i8", value: -128 }],
  ["t.u16", { type: "u16", value: 65_535 }],
  ["t.i16", { type: "i16", value: -32_768 }],
  ["t.u32", { type: "u32", value: 4_294_967_295 }],
  ["t.i32", { type: "i32", value: -2_147_483_648 }],
  ["t.f32", { type: "f32", value: 0.5 }],
  ["t.f64", { type: "f64", value: Math.PI }],
  ["t.bool", { type: "bool", value: true }],
  ["t.u64", { type: "u64", value: 2n ** 64n - 1n }],
  ["t.i64", { type: "i64", value: -5 }],
  ["t.empty", { type: "array", of: "string", value: [] }],
  ["t.strings", { type: "array", of: "string", value: ["<s>", "", "▁the", "\ufeff", "\ufffd"] }],
  ["t.floats", { type: "array", of: "f32", value: Float32Array.of(0, -1.5, Infinity) }],
  ["t.ints", { type: "array", of: "i32", value: [1, -2, 3] }],
  ["t.longs", { type: "array", of: "u64", value: [1n, 2n ** 63n] }],
  ["t.bools", { type: "array", of: "bool", value: [true, false, true] }],
  [
    "t.nested",
    {
      type: "array",
      of: "array",
      value: [
        { type: "array", of: "u8", value: [1, 2] },
        { type: "array", of: "string", value: ["a", "b"] },
      ],
    },
  ],
];

export function patternBytes(numBytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: numBytes }, (_, index) => (index * 31 + seed * 7) & 255);
}

/** One tensor of each type of GGUF, two rows of one quant block. */
export function tensorsOfEveryType() {
  const types = [...quantTypes.values()].filter(isGgufType);
  return types.map(({ name, quantBlockSize }, index) => {
    const shape = [2, quantBlockSize];
    const content = patternBytes(tensorBytes(name, shape), index);
    return { name: `blk.${index}.${name}`, type: name, shape, content };
  });
}

export function smallFiles(): Uint8Array<ArrayBuffer>[] {
  const vocabulary = Array.from({ length: 300 }, (_, index) => `token ${index}`);
  const float = { name: "w", type: "f32" as QuantType, shape: [4], content: patternBytes(16, 1) };
  const aligned: [string, GgufValue] = ["general.alignment", { type: "u32", value: 64 }];
  return [
    encodeGguf({ metadata: allValues, tensors: tensorsOfEveryType() }),
    encodeGguf({
      metadata: [["tokenizer.ggml.tokens", { type: "array", of: "string", value: vocabulary }]],
      tensors: [],
    }),
    encodeGguf({ metadata: [aligned], tensors: [float, { ...float, name: "w2", shape: [2, 2] }] }),
  ];
}

/** Builds a header field by field, valid or not. */
export class RawHeader {
  readonly #parts: Uint8Array[] = [];
  readonly #wide: boolean;

  constructor(version = 3, numTensors: number | bigint = 0, numPairs: number | bigint = 0) {
    this.#wide = version !== 1;
    this.text("GGUF").u32(version).count(numTensors).count(numPairs);
  }

  /** Bytes so far: the offset of what comes next. */
  get length(): number {
    return this.#parts.reduce((sum, part) => sum + part.length, 0);
  }

  bytes(...values: readonly number[]): this {
    this.#parts.push(Uint8Array.from(values));
    return this;
  }

  text(text: string): this {
    this.#parts.push(new TextEncoder().encode(text));
    return this;
  }

  u32(value: number): this {
    const part = new Uint8Array(4);
    new DataView(part.buffer).setUint32(0, value, true);
    this.#parts.push(part);
    return this;
  }

  u64(value: number | bigint): this {
    const part = new Uint8Array(8);
    new DataView(part.buffer).setBigUint64(0, BigInt(value), true);
    this.#parts.push(part);
    return this;
  }

  /** A count or length: 8 bytes, in version 1 only 4. */
  count(value: number | bigint): this {
    return this.#wide ? this.u64(value) : this.u32(Number(value));
  }

  string(text: string): this {
    return this.count(new TextEncoder().encode(text).length).text(text);
  }

  tensor(name: string, dims: readonly (number | bigint)[], type: number, offset: number | bigint) {
    this.string(name).u32(dims.length);
    for (const dim of dims) this.count(dim);
    return this.u32(type).u64(offset);
  }

  /** Zeros up to the next multiple of 32 and `numBytes` more. */
  body(numBytes: number): this {
    this.#parts.push(new Uint8Array(((32 - (this.length % 32)) % 32) + numBytes));
    return this;
  }

  build(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(Buffer.concat(this.#parts));
  }
}
