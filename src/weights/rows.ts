// Matrices as a run of rows that are read when asked for, and what conversions do to them: put
// rows in another order, add one, stack, transpose. Nothing here holds more than it was asked for.
// 8-bit floats stay what they are where whole rows move, and become F32 otherwise.
import { assert, TinferError } from "../core/errors.ts";
import { readFileRange } from "./file-range.ts";
import type { Float8Type } from "./float8.ts";
import type { DerivedTensor, TensorScales } from "./model-header.ts";
import { type QuantType, rowBytes, tensorBytes } from "./quant-types.ts";
import { isSourceType, quantizeMatrix, type SourceType } from "./quantize.ts";
import { release } from "./release.ts";
import { type RowScales, unscaledRows } from "./scaled-rows.ts";

export interface RowSource {
  /** Floats, or blocks that are used as they are. */
  readonly type: QuantType;
  readonly numRows: number;
  readonly cols: number;
  /** The bytes of rows `first` to `first + count`; the caller may change and release them. */
  read(first: number, count: number): Uint8Array<ArrayBuffer>;
  /** Of 8-bit floats: what their codes are multiplied by; 1 where absent. */
  readonly scales?: RowScales;
}

/** One chunk of a conversion takes about this much at its larger side. */
const chunkBytes = 32 * 2 ** 20;

export function fileRows(
  place: { readonly path: string; readonly offset: number },
  type: SourceType | Float8Type,
  [numRows, cols]: readonly [number, number],
): RowSource {
  const bytes = rowBytes(type, cols);
  return {
    ...{ type, numRows, cols },
    read: (first, count) => readFileRange(place.path, place.offset + first * bytes, count * bytes),
  };
}

/** Row `i` of the result is row `order(i)` of `source`; neighbours lie near each other. */
export function pickedRows(
  source: RowSource,
  numRows: number,
  order: (row: number) => number,
): RowSource {
  const { cols, type, scales } = source;
  const bytes = rowBytes(type, cols);
  return {
    ...{ type, cols, numRows },
    ...(scales && { scales: pickedScales(scales, numRows, order) }),
    read: (first, count) => {
      const wanted = Array.from({ length: count }, (_, i) => order(first + i));
      const low = wanted.reduce((least, row) => Math.min(least, row), source.numRows);
      const high = wanted.reduce((most, row) => Math.max(most, row), 0);
      const near = source.read(low, high - low + 1);
      const output = new Uint8Array(count * bytes);
      wanted.forEach((row, i) => {
        output.set(near.subarray((row - low) * bytes, (row - low + 1) * bytes), i * bytes);
      });
      release(near);
      return output;
    },
  };
}

/** The scales of rows in another order: each row has its own, unless one serves all of them. */
function pickedScales(
  { rows, blockRows, blockCols }: RowScales,
  numRows: number,
  order: (row: number) => number,
): RowScales {
  if (rows.numRows === 1) return { rows, blockRows: numRows, blockCols };
  const ofRow = (row: number) => Math.floor(order(row) / blockRows);
  return { rows: pickedRows(rows, numRows, ofRow), blockRows: 1, blockCols };
}

/** Rows `start` to `start + numRows` of `source`. */
export function slicedRows(source: RowSource, start: number, numRows: number): RowSource {
  assert(start >= 0 && start + numRows <= source.numRows, "slice lies within the rows");
  if (source.scales !== undefined) return pickedRows(source, numRows, (row) => start + row);
  return { ...source, numRows, read: (first, count) => source.read(start + first, count) };
}

/** Columns `start` to `start + cols` of `given`, whose rows are floats. */
export function slicedColumns(given: RowSource, start: number, cols: number): RowSource {
  const source = unscaledRows(given);
  assert(start >= 0 && start + cols <= source.cols, "slice lies within the columns");
  const { type } = source;
  const [from, bytes, stride] = [start, cols, source.cols].map((count) => rowBytes(type, count));
  return {
    ...{ type, cols, numRows: source.numRows },
    read: (first, count) => {
      const whole = source.read(first, count);
      const output = new Uint8Array(count * bytes!);
      for (let row = 0; row < count; row++) {
        const begin = row * stride! + from!;
        output.set(whole.subarray(begin, begin + bytes!), row * bytes!);
      }
      release(whole);
      return output;
    },
  };
}

/** One after the other; all have the same type and width. */
export function stackedRows(given: readonly RowSource[]): RowSource {
  const sources = given.map(unscaledRows);
  const [head] = sources;
  assert(head !== undefined, "at least one source");
  const { type, cols } = head;
  assert(
    sources.every((source) => source.type === type && source.cols === cols),
    "stacked rows are alike",
  );
  return {
    ...{ type, cols, numRows: sources.reduce((sum, source) => sum + source.numRows, 0) },
    read: (first, count) => {
      const output = new Uint8Array(count * rowBytes(type, cols));
      let end = 0;
      let start = 0;
      for (const source of sources) {
        const from = Math.max(first, start);
        const to = Math.min(first + count, start + source.numRows);
        if (to > from) {
          const part = source.read(from - start, to - from);
          output.set(part, end);
          end += part.length;
          release(part);
        }
        start += source.numRows;
      }
      return output;
    },
  };
}

/** The same elements with `change` done to each, as F32. */
export function mappedRows(source: RowSource, change: (value: number) => number): RowSource {
  const { numRows, cols } = source;
  return {
    ...{ type: "f32", numRows, cols },
    read: (first, count) => {
      const floats = readFloats(source, first, count);
      for (let i = 0; i < floats.length; i++) floats[i] = change(floats[i]!);
      return new Uint8Array(floats.buffer);
    },
  };
}

/** Matrices in `source`, one every `stride` rows from `start` on, that are `numRows` high. */
export interface Matrices {
  readonly start: number;
  readonly stride: number;
  readonly numRows: number;
}

/** Every matrix transposed, one after the other. Keeps the last one until its end was read. */
export function transposedMatrices(given: RowSource, matrices: Matrices): RowSource {
  const source = unscaledRows(given);
  const { start, stride, numRows } = matrices;
  const { type, cols } = source;
  const count = source.numRows / stride;
  assert(Number.isInteger(count) && start + numRows <= stride, "matrices tile the rows");
  const none = { index: -1, content: new Uint8Array(0) };
  let last = none;
  const matrix = (index: number) => {
    if (last.index !== index) {
      const content = transposed(source.read(index * stride + start, numRows), numRows, cols);
      last = { index, content };
    }
    return last.content;
  };
  const bytes = rowBytes(type, numRows);
  return {
    ...{ type, cols: numRows, numRows: count * cols },
    read: (first, wanted) => {
      const output = new Uint8Array(wanted * bytes);
      for (let row = first; row < first + wanted; ) {
        const index = Math.floor(row / cols);
        const end = Math.min(first + wanted, (index + 1) * cols);
        const from = (row - index * cols) * bytes;
        const part = matrix(index).subarray(from, from + (end - row) * bytes);
        output.set(part, (row - first) * bytes);
        // Experts of many layers would fill the memory.
        if (end === (index + 1) * cols) {
          release(last.content);
          last = none;
        }
        row = end;
      }
      return output;
    },
  };
}

function transposed(content: Uint8Array<ArrayBuffer>, rows: number, cols: number) {
  const bytes = content.length / (rows * cols);
  const Elements = bytes === 2 ? Uint16Array : Uint32Array;
  assert(bytes === Elements.BYTES_PER_ELEMENT, "elements of 2 or 4 bytes");
  const input = new Elements(content.buffer, content.byteOffset, rows * cols);
  const output = new Elements(input.length);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) output[col * rows + row] = input[row * cols + col]!;
  }
  release(content);
  return new Uint8Array(output.buffer);
}

export function readFloats(given: RowSource, first: number, count: number) {
  const source = unscaledRows(given);
  const content = source.read(first, count);
  const { type, cols } = source;
  assert(isSourceType(type), `rows of floats, not of ${type}`);
  if (type === "f32") return new Float32Array(content.buffer, content.byteOffset, count * cols);
  const floats = new Float32Array(quantizeMatrix("f32", { type, content, cols }).buffer);
  release(content);
  return floats;
}

/** The rows as a tensor of `type`. */
export function derivedTensor(
  name: string,
  type: QuantType,
  shape: readonly number[],
  given: RowSource,
): DerivedTensor {
  const rows = type === given.type ? given : unscaledRows(given);
  const numElements = shape.reduce((product, dimension) => product * dimension, 1);
  const { numRows, cols } = rows;
  assert(numElements === numRows * cols, `${name}: ${numElements} elements in ${numRows} rows`);
  const scales = rows.scales && { scales: derivedScales(name, rows.scales) };
  return { name, type, shape, bytes: tensorBytes(type, shape), rows, ...scales };
}

/** What the scales of a tensor are called. */
export const scalesName = (tensor: string) => `${tensor}_scale`;

export function derivedScales(tensor: string, { rows, ...blocks }: RowScales): TensorScales {
  const shape = [rows.numRows, rows.cols];
  return { tensor: derivedTensor(scalesName(tensor), "f32", shape, rows), ...blocks };
}

/** The bytes of a derived tensor in order, made chunk by chunk; each is good until the next. */
export function* derivedContent(
  { name, type, rows }: DerivedTensor,
  numThreads: number,
): Generator<Uint8Array<ArrayBuffer>> {
  const { numRows, cols } = rows;
  const perRow = Math.max(rowBytes(rows.type, cols), rowBytes(type, cols), 1);
  const rowsPerChunk = Math.max(1, Math.floor(chunkBytes / perRow));
  for (let first = 0; first < numRows; first += rowsPerChunk) {
    const content = rows.read(first, Math.min(rowsPerChunk, numRows - first));
    const options = { numThreads, firstRow: first, what: `tensor '${name}'` };
    if (rows.type === type) {
      yield content;
      release(content);
      continue;
    }
    const made = quantizeMatrix(type, { type: floatType(name, rows), content, cols }, options);
    release(content);
    yield made;
    release(made);
  }
}

/** Throws for rows that are blocks already. */
export function floatType(name: string, { type }: RowSource): SourceType {
  if (isSourceType(type)) return type;
  throw new TinferError("unsupported", `tensor '${name}' is quantised already (${type})`, {
    hint: "errors would add up: leave it as it is, or start from F32, F16 or BF16 weights",
  });
}
