// Quantises matrices with the native quantiser, a run of rows at a time, so that long work can be
// watched and stopped between runs.
import { assert, TinferError } from "../core/errors.ts";
import { quantizeNative } from "../native/quantizer.ts";
import { type QuantType, quantTypeInfo, rowBytes } from "./quant-types.ts";
import { release } from "./release.ts";

/** Types whose rows can be quantised from. */
export const sourceTypes = ["f32", "f16", "bf16"] as const satisfies readonly QuantType[];
export type SourceType = (typeof sourceTypes)[number];

export function isSourceType(type: QuantType): type is SourceType {
  return sourceTypes.some((source) => source === type);
}

const targets: ReadonlySet<QuantType> = new Set<QuantType>([
  ...sourceTypes,
  ...(["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4", "nvfp4"] as const),
  ...(["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs", "tq1_0", "tq2_0"] as const),
  ...(["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"] as const),
]);

export function canQuantize(type: QuantType): boolean {
  return targets.has(type);
}

export interface QuantizeOptions {
  /** [cols]: how much each column's error counts (an importance matrix's row), not negative. */
  readonly importance?: Float32Array;
  readonly numThreads?: number;
  /** Starts the text of an error, such as the tensor's name. */
  readonly what?: string;
  /** What errors call the first row; above 0 for a caller that brings a matrix in parts. */
  readonly firstRow?: number;
  /** Index of the CPU variant, for tests. */
  readonly variant?: number;
}

/** A matrix of floats as it lies in a file or an array. */
export interface FloatMatrix {
  readonly type: SourceType;
  /** Whole rows of `cols` elements. */
  readonly content: Uint8Array;
  readonly cols: number;
}

export function floatMatrix(values: Float32Array, cols: number): FloatMatrix {
  const content = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { type: "f32", content, cols };
}

function numRows(matrix: FloatMatrix): number {
  const rows = matrix.content.length / rowBytes(matrix.type, matrix.cols);
  assert(Number.isInteger(rows), `${matrix.content.length} bytes are no rows of ${matrix.cols}`);
  return rows;
}

/** The rows of `matrix` as `type`; values that the type cannot hold are refused by row and column. */
export function quantizeMatrix(
  type: QuantType,
  matrix: FloatMatrix,
  options: QuantizeOptions = {},
): Uint8Array<ArrayBuffer> {
  const { cols } = matrix;
  const { importance, what = "the matrix" } = options;
  if (!canQuantize(type)) {
    throw new TinferError("unsupported", `tinfer cannot make weights of type ${type}`, {
      hint: `it makes ${[...targets].join(", ")}`,
    });
  }
  const { quantBlockSize, ggmlType } = quantTypeInfo(type);
  if (cols % quantBlockSize !== 0) {
    const text = `${what}: rows of ${cols} are no multiple of ${quantBlockSize}, as ${type} needs`;
    throw new TinferError("unsupported", text, { hint: "take a type with smaller blocks: q8_0" });
  }
  assert(importance === undefined || importance.length === cols, "importance is one per column");
  const rows = numRows(matrix);
  const output = new Uint8Array(rows * rowBytes(type, cols));
  if (rows === 0 || cols === 0) return output;
  const job = {
    ...{ source: matrix.content, sourceTypeId: quantTypeInfo(matrix.type).ggmlType },
    ...{ typeId: ggmlType, rows, cols, output, importance },
    firstRow: options.firstRow ?? 0,
    numThreads: options.numThreads ?? 1,
    variant: options.variant,
  };
  quantizeNative(job, `${what} cannot become ${type}`);
  return output;
}

/** Rows of one run: about this many elements, some ten milliseconds to a second of work. */
const runElements = 2 ** 22;

/** Rows of floats that are brought when they are needed. */
export interface FloatRows {
  readonly rows: number;
  readonly cols: number;
  /** A matrix of these rows; good until the next call. */
  read(firstRow: number, count: number): FloatMatrix;
}

/**
 * `quantizeMatrix` in runs of rows, in order: the caller may report progress, stop, or let other
 * work in between them; each run's result is good until the next. For a stack of matrices `importance` may have a row for each.
 */
export function* quantizeRuns(
  type: QuantType,
  source: FloatRows,
  options: Omit<QuantizeOptions, "firstRow"> = {},
): Generator<Uint8Array<ArrayBuffer>> {
  const { rows, cols } = source;
  const { importance } = options;
  const numMatrices = importance === undefined ? 1 : importance.length / cols;
  const matrixRows = rows / numMatrices;
  assert(Number.isInteger(matrixRows), `${rows} rows are no ${numMatrices} equal matrices`);
  const rowsPerRun = Math.max(1, Math.floor(runElements / cols));
  for (let matrix = 0; matrix < numMatrices; matrix++) {
    const own = importance?.subarray(matrix * cols, (matrix + 1) * cols);
    const last = (matrix + 1) * matrixRows;
    for (let row = matrix * matrixRows; row < last; row += rowsPerRun) {
      const content = source.read(row, Math.min(rowsPerRun, last - row));
      const given = own === undefined ? {} : { importance: own };
      const made = quantizeMatrix(type, content, { ...options, ...given, firstRow: row });
      yield made;
      release(made);
    }
  }
}
