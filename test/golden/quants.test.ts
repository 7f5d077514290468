// Dequantisation against ggml's values, and quantisation against the error of ggml's quantisers.
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { canDequantize, dequantizeRow } from "../../src/weights/dequantize.ts";
import { isQuantType, quantTypeInfo, tensorBytes } from "../../src/weights/quant-types.ts";
import { canQuantize, floatMatrix, quantizeMatrix } from "../../src/weights/quantize.ts";
import { goldenFolder } from "../golden-folder.ts";

interface Entry {
  readonly ggmlType: number;
  readonly blockSize: number;
  readonly blockBytes: number;
  readonly rows: number;
  readonly cols: number;
  readonly file: string;
  readonly rmse: number;
  readonly skipped?: string;
  readonly codes?: { readonly file: string; readonly rows: number; readonly cols: number };
}

/** The list: these must be there; others are compared as they arrive. */
const required = ["f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k"];
required.push("q5_k", "q6_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4");
required.push("q1_0", "q2_0", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s");

function floats(path: string): Float32Array {
  const bytes = new Uint8Array(readFileSync(path));
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** Largest |a - b| / |b|; a zero must be met exactly. */
function largestRelativeError(actual: Float32Array, wanted: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < wanted.length; i++) {
    const error = Math.abs(actual[i]! - wanted[i]!);
    if (error > 0) largest = Math.max(largest, error / Math.abs(wanted[i]!));
    else if (Number.isNaN(error)) return Number.NaN;
  }
  return largest;
}

const root = goldenFolder("golden quants");

describe.skipIf(root === undefined)("quant types", () => {
  const folder = join(root ?? "", "quants");
  const index: Record<string, Entry> =
    root === undefined ? {} : JSON.parse(readFileSync(join(folder, "index.json"), "utf8"));

  test("the list of golden types holds every required one", () => {
    const names = new Set(Object.keys(index).map((key) => key.toLowerCase()));
    expect(required.filter((type) => !names.has(type) || !isQuantType(type))).toEqual([]);
    expect(required.filter((type) => isQuantType(type) && !canDequantize(type))).toEqual([]);
  });

  for (const [key, entry] of Object.entries(index)) {
    const type = key.toLowerCase();
    test(`${type} is in the table`, () => {
      if (!isQuantType(type)) throw new Error(`${type} is not in the table`);
      expect(quantTypeInfo(type)).toEqual({
        name: type,
        ggmlType: entry.ggmlType,
        quantBlockSize: entry.blockSize,
        quantBlockBytes: entry.blockBytes,
      });
    });
    if (!isQuantType(type) || entry.skipped !== undefined || !canDequantize(type)) continue;
    const parts = [{ file: entry.file, rows: entry.rows, cols: entry.cols }];
    if (entry.codes !== undefined) parts.push(entry.codes);
    for (const { file, rows, cols } of parts) {
      test(`${file} expands to ggml's values`, () => {
        const bytes = new Uint8Array(readFileSync(join(folder, file)));
        expect(bytes.length).toBe(tensorBytes(type, [rows, cols]));
        const actual = new Float32Array(rows * cols);
        dequantizeRow(type, bytes, actual);
        const wanted = floats(join(folder, file.replace(/bin$/, "f32")));
        expect(wanted.length).toBe(actual.length);
        expect(largestRelativeError(actual, wanted)).toBeLessThanOrEqual(1e-6);
      });
    }
    if (!canQuantize(type)) continue;
    test(`${type} is quantised as closely as by ggml`, () => {
      const input = floats(join(folder, "input.f32"));
      const back = new Float32Array(input.length);
      dequantizeRow(type, quantizeMatrix(type, floatMatrix(input, entry.cols)), back);
      const squares = back.reduce((sum, value, i) => sum + (value - input[i]!) ** 2, 0);
      expect(Math.sqrt(squares / input.length)).toBeLessThanOrEqual(1.02 * entry.rmse);
    });
  }
});
