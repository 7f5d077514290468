// Sums over the rows of a matrix, natively and on several threads: each row's square and its
// products with some vectors.
import { ptr } from "bun:ffi";
import { bestVariant } from "./cpu-report.ts";
import { check, native } from "./library.ts";

/** Rows of a matrix in their GGUF type. */
export interface SummedRows {
  readonly source: Uint8Array;
  readonly typeId: number;
  readonly rows: number;
  readonly cols: number;
  /** `[numVectors, cols]` */
  readonly vectors: Float32Array;
  readonly numThreads: number;
  /** Index of the CPU variant; the best one if absent. */
  readonly variant?: number;
}

/** `[rows, 1 + numVectors]`: the square, then the products; `what` starts the text of an error. */
export function sumRowsNative(job: SummedRows, what: string): Float64Array {
  const { rows, cols, numThreads } = job;
  const numVectors = job.vectors.length / cols;
  const output = new Float64Array(rows * (1 + numVectors));
  const scratch = new Float32Array(numThreads * cols);
  // `RowSumArgs` of kernels/abi.zig.
  const args = new BigUint64Array(8);
  const words = new Uint32Array(args.buffer);
  // A view of nothing has no address.
  const vectors = numVectors === 0 ? scratch : job.vectors;
  args.set([job.source, vectors, output, scratch].map((view) => BigInt(ptr(view))));
  args.set([BigInt(rows), BigInt(cols)], 4);
  words.set([job.typeId, numVectors, numThreads, job.variant ?? bestVariant], 12);
  check(native().tinfer_row_sums(ptr(args)), what);
  return output;
}
