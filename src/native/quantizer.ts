// The native quantiser: rows of floats in, rows of quant blocks out, on several threads; and the
// way back. Types are GGUF numbers here; src/weights/quantize.ts knows their names.
import { ptr } from "bun:ffi";
import { bestVariant } from "./cpu-report.ts";
import { check, native } from "./library.ts";

/** Rows that lie one after the other, on both sides. */
export interface QuantizeRows {
  readonly source: Uint8Array;
  /** f32, f16 or bf16. */
  readonly sourceTypeId: number;
  readonly typeId: number;
  readonly rows: number;
  readonly cols: number;
  readonly output: Uint8Array;
  /** [cols]: how much each column's error counts, not negative. */
  readonly importance?: Float32Array | undefined;
  /** What errors call the first row. */
  readonly firstRow: number;
  readonly numThreads: number;
  /** Index of the CPU variant; the best one if absent. */
  readonly variant?: number | undefined;
}

/** Fills `output`; `what` starts the text of an error, which names the first bad element. */
export function quantizeNative(rows: QuantizeRows, what: string): void {
  const { importance } = rows;
  // `QuantizeArgs` of kernels/abi.zig.
  const args = new DataView(new ArrayBuffer(64));
  const address = (offset: number, view: Uint8Array | Float32Array | undefined) => {
    args.setBigUint64(offset, view === undefined ? 0n : BigInt(ptr(view)), true);
  };
  address(0, rows.source);
  address(8, importance);
  address(16, rows.output);
  args.setBigUint64(24, BigInt(rows.cols), true);
  args.setUint32(32, rows.sourceTypeId, true);
  args.setUint32(36, rows.typeId, true);
  args.setBigUint64(40, BigInt(rows.rows), true);
  args.setBigUint64(48, BigInt(rows.firstRow), true);
  args.setUint32(56, rows.numThreads, true);
  args.setUint32(60, rows.variant ?? bestVariant, true);
  const hint = "the file is damaged or overflowed in training: take another copy or type";
  check(native().tinfer_quantize(ptr(args)), what, hint);
}

/** Fills `output` from as many weights of the type; `what` starts the text of an error. */
export function dequantizeNative(
  typeId: number,
  source: Uint8Array,
  output: Float32Array,
  what: string,
): void {
  // `DequantizeArgs` of kernels/abi.zig.
  const args = new BigUint64Array(4);
  args.set([BigInt(ptr(source)), BigInt(ptr(output)), BigInt(output.length)]);
  new Uint32Array(args.buffer).set([typeId, bestVariant], 6);
  check(native().tinfer_dequantize(ptr(args)), what);
}
