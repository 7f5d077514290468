// Rows of 8-bit floats: codes, and apart from them the scales that make them weights, one for each
// block of rows and columns.
import { assert } from "../core/errors.ts";
import { float8Values, isFloat8 } from "./float8.ts";
import { release } from "./release.ts";
import type { RowSource } from "./rows.ts";

export interface RowScales {
  /** F32 `[row blocks, column blocks]`. */
  readonly rows: RowSource;
  /** Rows and columns of a block; the last ones may be cut. */
  readonly blockRows: number;
  readonly blockCols: number;
}

/** Kernels take columns in steps of so many, each of one scale (kernels/plan_check.zig). */
const stepCols = 16;

/** Whether kernels can compute with blocks so wide, of rows of `cols`. */
export function areUsableBlocks(blockCols: number, cols: number): boolean {
  return blockCols >= cols || blockCols % stepCols === 0;
}

/** 8-bit floats as F32, each code times its scale, rounded once; other rows are as they were. */
export function unscaledRows(source: RowSource): RowSource {
  const { type, numRows, cols, scales } = source;
  if (!isFloat8(type)) return source;
  const values = float8Values[type];
  const read = (first: number, count: number) => {
    const codes = source.read(first, count);
    const floats = new Float32Array(codes.length);
    for (let i = 0; i < floats.length; i++) floats[i] = values[codes[i]!]!;
    release(codes);
    if (scales !== undefined) multiplyScales(floats, cols, first, scales);
    return new Uint8Array(floats.buffer);
  };
  return { type: "f32", numRows, cols, read };
}

/** Multiplies rows `first` and following. */
function multiplyScales(
  floats: Float32Array,
  cols: number,
  first: number,
  { rows, blockRows, blockCols }: RowScales,
): void {
  const count = floats.length / cols;
  const blockOf = (row: number) => Math.floor(row / blockRows);
  const firstBlock = blockOf(first);
  const content = rows.read(firstBlock, blockOf(first + count - 1) - firstBlock + 1);
  const factors = new Float32Array(content.buffer);
  for (let row = 0; row < count; row++) {
    const start = (blockOf(first + row) - firstBlock) * rows.cols;
    const own = factors.subarray(start, start + rows.cols);
    scaleRow(floats.subarray(row * cols, (row + 1) * cols), own, blockCols);
  }
  release(content);
}

/** row[i] *= the factor of its block, in f32. */
export function scaleRow(row: Float32Array, factors: Float32Array, blockCols: number): void {
  assert(factors.length === Math.ceil(row.length / blockCols), "a scale for each block of columns");
  for (let block = 0; block < factors.length; block++) {
    const factor = factors[block]!;
    const end = Math.min(row.length, (block + 1) * blockCols);
    for (let i = block * blockCols; i < end; i++) row[i]! *= factor;
  }
}
