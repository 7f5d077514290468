// Quant types by hand: values worked out on paper, and refusals.
// The comparison with ggml is in test/golden/quants.test.ts.
import { describe, expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import { type CodeBookName, codeBook } from "../../src/weights/codebooks.ts";
import { canDequantize, dequantizeRow } from "../../src/weights/dequantize.ts";
import {
  type QuantType,
  quantTypeInfo,
  quantTypeOf,
  quantTypes,
  removedTypeName,
} from "../../src/weights/quant-types.ts";

function expand(type: QuantType, bytes: Uint8Array): number[] {
  const { quantBlockSize, quantBlockBytes } = quantTypeInfo(type);
  const output = new Float32Array((bytes.length / quantBlockBytes) * quantBlockSize);
  dequantizeRow(type, bytes, output);
  return Array.from(output);
}

/** One quant block: the given bytes, the rest zeros. */
function blockOf(type: QuantType, places: Record<number, readonly number[]>): Uint8Array {
  const bytes = new Uint8Array(quantTypeInfo(type).quantBlockBytes);
  for (const [at, values] of Object.entries(places)) bytes.set(values, Number(at));
  return bytes;
}

const half = [0x00, 0x38]; // 0.5 as f16
const one = [0x00, 0x3c]; // 1 as f16

describe("the table", () => {
  test("numbers are unique and lead back to their row", () => {
    const numbers = [...quantTypes.values()].map(({ ggmlType }) => ggmlType);
    expect(new Set(numbers).size).toBe(quantTypes.size);
    for (const type of quantTypes.values()) expect(quantTypeOf(type.ggmlType)).toEqual(type);
    expect(quantTypeOf(4)).toBeUndefined();
    expect(removedTypeName(4)).toBe("q4_2");
    expect(removedTypeName(0)).toBeUndefined();
  });
});

describe("by hand", () => {
  test("floats", () => {
    expect(expand("f32", new Uint8Array(Float32Array.of(1.5, -0.1).buffer))).toEqual(
      Array.from(Float32Array.of(1.5, -0.1)),
    );
    // 1, -2, the largest, the smallest subnormal, infinity.
    const f16 = [0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b, 0x01, 0x00, 0x00, 0x7c];
    expect(expand("f16", Uint8Array.from(f16))).toEqual([1, -2, 65504, 2 ** -24, Infinity]);
    // Every bf16 is the f32 with the same upper half.
    const all = Uint16Array.from({ length: 65_536 }, (_, index) => index);
    const wide = Uint32Array.from(all, (half) => half * 65_536);
    const floats = Array.from(new Float32Array(wide.buffer));
    expect(expand("bf16", new Uint8Array(all.buffer))).toEqual(floats);
  });

  test("q4_0: low nibbles first, then high ones, around 8", () => {
    const values = expand("q4_0", blockOf("q4_0", { 0: half, 2: [0xf0, 0x19] }));
    expect(values.slice(0, 3)).toEqual([-4, 0.5, -4]);
    expect(values.slice(16, 19)).toEqual([3.5, -3.5, -4]);
  });

  test("q5_1: fifth bits and the minimum", () => {
    const places = { 0: half, 2: one, 4: [1, 0, 0, 0x80], 8: [2] };
    const values = expand("q5_1", blockOf("q5_1", places));
    expect([values[0], values[1], values[31]]).toEqual([0.5 * 18 + 1, 1, 0.5 * 16 + 1]);
  });

  test("q6_k: scale, low nibble and high bits", () => {
    const places = { 208: one, 192: [2], 193: [0xff], 0: [0x0f], 128: [0x03], 16: [0x01] };
    const values = expand("q6_k", blockOf("q6_k", places));
    expect([values[0], values[1], values[16]]).toEqual([2 * (63 - 32), -64, -1 * (1 - 32)]);
  });

  test("q8_k: an f32 scale", () => {
    const scale = Array.from(new Uint8Array(Float32Array.of(0.25).buffer));
    const values = expand("q8_k", blockOf("q8_k", { 0: scale, 4: [4, 0x80] }));
    expect(values.slice(0, 3)).toEqual([1, -32, 0]);
  });

  test("mxfp4: the ends of the exponent", () => {
    const least = expand("mxfp4", blockOf("mxfp4", { 0: [0], 1: [0x21] }));
    expect([least[0], least[16], least[1]]).toEqual([2 ** -128, 2 ** -127, 0]);
    const greatest = expand("mxfp4", blockOf("mxfp4", { 0: [254], 1: [0xa2] }));
    expect([greatest[0], greatest[16]]).toEqual([2 ** 127, -(2 ** 127)]);
  });
});

test("code books: a point per code, and points by hand", () => {
  const sizes = { iq2_xxs: 256, iq2_xs: 512, iq2_s: 1024, iq3_xxs: 256, iq3_s: 512, iq1_s: 2048 };
  for (const [name, count] of Object.entries(sizes)) {
    const dim = name.startsWith("iq3") ? 4 : 8;
    expect(codeBook(name as CodeBookName).length).toBe(count * dim);
  }
  // Code 0 is the point of least digits: eight times 8, d / 8, scale 1; signs of weights 1 and 7.
  const xxs = expand("iq2_xxs", blockOf("iq2_xxs", { 0: one, 6: [0x02] }));
  expect(xxs.slice(0, 9)).toEqual([1, -1, 1, 1, 1, 1, 1, -1, 1]);
  // Scale 7 and a shift down: 15 * (-1 - 1 / 8).
  const iq1 = expand("iq1_s", blockOf("iq1_s", { 0: one, 34: [0x00, 0xf0] }));
  expect([iq1[0], iq1[31], iq1[32]]).toEqual([-16.875, -16.875, -0.875]);
});

describe("refusals", () => {
  test("types without an expansion", () => {
    expect(canDequantize("q8_1")).toBe(false);
    const expandSums = () => dequantizeRow("q8_1", new Uint8Array(36), new Float32Array(32));
    expect(expandSums).toThrow(TinferError);
  });

  test("bytes and elements that do not belong together are a mistake of the caller", () => {
    expect(() => dequantizeRow("q4_0", new Uint8Array(17), new Float32Array(32))).toThrow("17");
    expect(() => dequantizeRow("q4_0", new Uint8Array(9), new Float32Array(16))).toThrow();
  });
});
