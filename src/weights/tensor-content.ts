// Reads single tensors of a model into JavaScript memory: for the reference executor, for
// tests and for conversions. Inference maps the files natively and never comes here.
import { dequantizeNative } from "../native/quantizer.ts";
import { sumRowsNative } from "../native/row-sums.ts";
import { dequantizeRow } from "./dequantize.ts";
import { readFileRange } from "./file-range.ts";
import { isFloat8 } from "./float8.ts";
import {
  type DerivedTensor,
  isInFile,
  type ModelHeader,
  type ModelTensor,
} from "./model-header.ts";
import { type QuantType, quantTypeInfo, rowBytes } from "./quant-types.ts";
import { rowsOf } from "./retype.ts";
import { derivedContent, derivedTensor, readFloats, slicedRows } from "./rows.ts";

type Source = Pick<ModelHeader, "paths">;

/** The tensor's bytes, as they are in the file where they lie in one. */
export function readTensorBytes(source: Source, tensor: ModelTensor): Uint8Array<ArrayBuffer> {
  if (!isInFile(tensor)) return madeBytes(tensor);
  return readFileRange(source.paths[tensor.fileIndex]!, tensor.offset, tensor.bytes);
}

function madeBytes(tensor: DerivedTensor): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(tensor.bytes);
  let end = 0;
  for (const chunk of derivedContent(tensor, 1)) {
    bytes.set(chunk, end);
    end += chunk.length;
  }
  return bytes;
}

/** The tensor's elements in f32, row-major, whatever its type. */
export function readTensorFloats(source: Source, tensor: ModelTensor): Float32Array<ArrayBuffer> {
  const numElements = tensor.shape.reduce((product, dimension) => product * dimension, 1);
  if (isFloat8(tensor.type)) {
    const rows = rowsOf(source, tensor);
    return readFloats(rows, 0, rows.numRows);
  }
  const floats = new Float32Array(numElements);
  dequantizeRow(tensor.type, readTensorBytes(source, tensor), floats);
  return floats;
}

/** Some rows of a tensor. */
export interface TensorRows {
  readonly tensor: ModelTensor;
  readonly first: number;
  readonly count: number;
}

interface TypedBytes {
  readonly type: QuantType;
  readonly content: Uint8Array;
}

/** The rows as the tensor is used, quantised where it is; scaled ones as F32. */
function readTyped(source: Source, rows: TensorRows): TypedBytes {
  const { type } = rows.tensor;
  if (!isFloat8(type)) return { type, content: readRowBytes(source, rows) };
  const floats = readFloats(rowsOf(source, rows.tensor), rows.first, rows.count);
  return {
    type: "f32",
    content: new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength),
  };
}

function readRowBytes(source: Source, { tensor, first, count }: TensorRows) {
  const { name, type, shape } = tensor;
  const cols = shape.at(-1)!;
  if (isInFile(tensor)) {
    const bytes = rowBytes(type, cols);
    const path = source.paths[tensor.fileIndex]!;
    return readFileRange(path, tensor.offset + first * bytes, count * bytes);
  }
  const rows = slicedRows(tensor.rows, first, count);
  return readTensorBytes(source, derivedTensor(name, type, [count, cols], rows));
}

/** In f32, row-major. */
export function readTensorRows(source: Source, rows: TensorRows): Float32Array<ArrayBuffer> {
  const { name, shape } = rows.tensor;
  const floats = new Float32Array(rows.count * shape.at(-1)!);
  const { type, content } = readTyped(source, rows);
  dequantizeNative(quantTypeInfo(type).ggmlType, content, floats, `tensor '${name}'`);
  return floats;
}

/** `[count, 1 + vectors]`: the square of each row and its products with `vectors` `[n, cols]`. */
export function sumTensorRows(
  source: Source,
  rows: TensorRows,
  vectors: Float32Array,
  numThreads: number,
): Float64Array {
  const { name, shape } = rows.tensor;
  const { type, content } = readTyped(source, rows);
  const { ggmlType: typeId } = quantTypeInfo(type);
  const matrix = { typeId, rows: rows.count, cols: shape.at(-1)! };
  return sumRowsNative({ ...matrix, source: content, vectors, numThreads }, `tensor '${name}'`);
}
