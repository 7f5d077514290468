// Matrices as a run of rows that are read when asked for, and what conversions do to them: put
// rows in another order, add one, stack, transpose. Nothing here holds more than it was asked for.
import { assert } from "../core/errors.ts";
import { readFileRange } from "./file-range.ts";
import type { DerivedTensor } from "./model-header.ts";
import { type QuantType, rowBytes, tensorBytes } from "./quant-types.ts";
import { quantizeMatrix, type SourceType } from "./quantize.ts";

export interface RowSource {
  readonly type: SourceType;
  readonly numRows: number;
  readonly cols: number;
  /** The bytes of rows `first` to `first + count`; the caller may change them. */
  read(first: number, count: number): Uint8Array<ArrayBuffer>;
}

/** One chunk of a conversion takes about this much at its larger side. */
const chunkBytes = 32 * 2 ** 20;

export function fileRows(
  place: { readonly path: string; readonly offset: number },
  type: SourceType,
  [numRows, cols]: readonly [number, number],
): RowSource {
  const bytes = rowBytes(type, cols);
  return {
    ...{ type, numRows, cols },
    read: (first, count) => readFileRange(place.path, place.offset + first * bytes, count * bytes),
  };
}

/** Row `i` of the result is row `order(i)` of `source`. */
export function reorderedRows(source: RowSource, order: (row: number) => number): RowSource {
  const { numRows, cols, type } = source;
  const bytes = rowBytes(type, cols);
  return {
    ...source,
    read: (first, count) => {
      // Orders stay within a head: all that is wanted lies near.
      const wanted = Array.from({ length: count }, (_, i) => order(first + i));
      const low = wanted.reduce((least, row) => Math.min(least, row), numRows);
      const high = wanted.reduce((most, row) => Math.max(most, row), 0);
      const near = source.read(low, high - low + 1);
      const output = new Uint8Array(count * bytes);
      wanted.forEach((row, i) => {
        output.set(near.subarray((row - low) * bytes, (row - low + 1) * bytes), i * bytes);
      });
      return output;
    },
  };
}

/** Rows `start` to `start + numRows` of `source`. */
export function slicedRows(source: RowSource, start: number, numRows: number): RowSource {
  assert(start >= 0 && start + numRows <= source.numRows, "slice lies within the rows");
  return { ...source, numRows, read: (first, count) => source.read(start + first, count) };
}

/** One after the other; all have the same type and width. */
export function stackedRows(sources: readonly RowSource[]): RowSource {
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
      const parts: Uint8Array[] = [];
      let start = 0;
      for (const source of sources) {
        const from = Math.max(first, start);
        const to = Math.min(first + count, start + source.numRows);
        if (to > from) parts.push(source.read(from - start, to - from));
        start += source.numRows;
      }
      return new Uint8Array(Buffer.concat(parts));
    },
  };
}

/** The same elements with `change` done to each, as F32. */
export function mappedRows(source: RowSource, change: (value: number) => number): RowSource {
  return {
    ...source,
    type: "f32",
    read: (first, count) => {
      const floats = readFloats(source, first, count);
      for (let i = 0; i < floats.length; i++) floats[i] = change(floats[i]!);
      return new Uint8Array(floats.buffer);
    },
  };
}

/** Columns become rows. `source` is read whole for every call: for what fits in one chunk. */
export function transposedRows(source: RowSource): RowSource {
  const { numRows, cols } = source;
  return {
    ...{ type: "f32" as const, numRows: cols, cols: numRows },
    read: (first, count) => {
      const floats = readFloats(source, 0, numRows);
      const output = new Float32Array(count * numRows);
      for (let row = 0; row < count; row++) {
        for (let i = 0; i < numRows; i++) {
          output[row * numRows + i] = floats[i * cols + first + row]!;
        }
      }
      return new Uint8Array(output.buffer);
    },
  };
}

export function readFloats(source: RowSource, first: number, count: number) {
  const content = source.read(first, count);
  const { type, cols } = source;
  const bytes = type === "f32" ? content : quantizeMatrix("f32", { type, content, cols });
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** The rows as a tensor of `type`. */
export function derivedTensor(
  name: string,
  type: QuantType,
  shape: readonly number[],
  rows: RowSource,
): DerivedTensor {
  const numElements = shape.reduce((product, dimension) => product * dimension, 1);
  const { numRows, cols } = rows;
  assert(numElements === numRows * cols, `${name}: ${numElements} elements in ${numRows} rows`);
  return { name, type, shape, bytes: tensorBytes(type, shape), rows };
}

/** The bytes of a derived tensor in order, made chunk by chunk. */
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
    yield rows.type === type
      ? content
      : quantizeMatrix(type, { type: rows.type, content, cols }, options);
  }
}
