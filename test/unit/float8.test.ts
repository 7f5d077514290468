// Weights in 8-bit floats and their scales: per tensor, per row, per block.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { float8Rows } from "../../src/hugging-face/float8-rows.ts";
import { float8Values } from "../../src/weights/float8.ts";
import { readFloats } from "../../src/weights/rows.ts";
import type { SafeDtype, SafeTensor } from "../../src/weights/safetensors.ts";

const folder = mkdtempSync(join(tmpdir(), "tinfer-float8-"));
afterAll(() => rmSync(folder, { recursive: true }));
const paths = [join(folder, "codes"), join(folder, "scales")];

test("the codes of both formats", () => {
  const { f8_e4m3: e4m3, f8_e5m2: e5m2 } = float8Values;
  expect([e4m3[0x00], e4m3[0x01], e4m3[0x08], e4m3[0x38]]).toEqual([0, 2 ** -9, 2 ** -6, 1]);
  expect([e4m3[0x7e], e4m3[0xfe], e4m3[0x7f]]).toEqual([448, -448, Number.NaN]);
  expect([e5m2[0x01], e5m2[0x3c], e5m2[0x7b]]).toEqual([2 ** -16, 1, 57344]);
  expect([e5m2[0x7c], e5m2[0xfc], e5m2[0x7d]]).toEqual([Infinity, -Infinity, Number.NaN]);
});

function tensor(fileIndex: number, dtype: SafeDtype, shape: number[], bytes: Uint8Array) {
  writeFileSync(paths[fileIndex]!, bytes);
  return { name: "w", dtype, shape, fileIndex, offset: 0, bytes: bytes.length } as SafeTensor;
}

/** A 3 × 5 matrix of ones with the scales; blocks are 2 × 4. */
function scaled(shape: number[], scales: number[]): number[] {
  const codes = tensor(0, "F8_E4M3", [3, 5], new Uint8Array(15).fill(0x38));
  const scale = tensor(1, "F32", shape, new Uint8Array(Float32Array.from(scales).buffer));
  const pathOf = ({ fileIndex }: SafeTensor) => paths[fileIndex]!;
  const rows = float8Rows(codes, { type: "f8_e4m3", pathOf, scale, block: [2, 4] });
  return [...readFloats(rows, 1, 2)];
}

describe("scales", () => {
  test("of the whole tensor", () => {
    expect(scaled([], [3])).toEqual(new Array(10).fill(3));
    expect(scaled([1], [3])).toEqual(new Array(10).fill(3));
  });
  test("of rows", () => {
    expect(scaled([3, 1], [2, 3, 4])).toEqual([3, 3, 3, 3, 3, 4, 4, 4, 4, 4]);
  });
  test("of blocks, whose last ones are cut", () => {
    expect(scaled([2, 2], [2, 3, 4, 5])).toEqual([2, 2, 2, 2, 3, 4, 4, 4, 4, 5]);
  });
  test("of blocks of stacked matrices", () => {
    const read = (height: number) => {
      const shape = [3, height, 4];
      const count = 3 * Math.ceil(height / 2);
      const values = Float32Array.from({ length: count }, (_, i) => i + 1);
      const codes = tensor(0, "F8_E4M3", shape, new Uint8Array(12 * height).fill(0x38));
      const bytes = new Uint8Array(values.buffer);
      const scale = tensor(1, "F32", [3, Math.ceil(height / 2), 1], bytes);
      const pathOf = ({ fileIndex }: SafeTensor) => paths[fileIndex]!;
      const rows = float8Rows(codes, { type: "f8_e4m3", pathOf, scale, block: [2, 4] });
      return [...readFloats(rows, 0, rows.numRows)].filter((_, i) => i % 8 === 0);
    };
    expect(read(4)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(() => read(3)).toThrow(/does not cover \[9, 4\]/);
  });
  test("that do not cover the tensor are refused", () => {
    expect(() => scaled([2, 3], [1, 1, 1, 1, 1, 1])).toThrow(/does not cover \[3, 5\]/);
  });
});
