// Reads single tensors of a model into JavaScript memory: for the reference executor, for
// tests and for conversions. Inference maps the files natively and never comes here.
import { dequantizeNative } from "../native/quantizer.ts";
import { dequantizeRow } from "./dequantize.ts";
import { readFileRange } from "./file-range.ts";
import {
  type DerivedTensor,
  isInFile,
  type ModelHeader,
  type ModelTensor,
} from "./model-header.ts";
import { quantTypeInfo, rowBytes } from "./quant-types.ts";
import { derivedContent, derivedTensor, slicedRows } from "./rows.ts";

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
  const floats = new Float32Array(numElements);
  dequantizeRow(tensor.type, readTensorBytes(source, tensor), floats);
  return floats;
}

/** Rows `first` to `first + count` of the tensor in f32, as it is used: quantised where it is. */
export function readTensorRows(
  source: Source,
  tensor: ModelTensor,
  first: number,
  count: number,
): Float32Array<ArrayBuffer> {
  const { name, type, shape } = tensor;
  const cols = shape.at(-1)!;
  const bytes = rowBytes(type, cols);
  const content = isInFile(tensor)
    ? readFileRange(source.paths[tensor.fileIndex]!, tensor.offset + first * bytes, count * bytes)
    : readTensorBytes(
        source,
        derivedTensor(name, type, [count, cols], slicedRows(tensor.rows, first, count)),
      );
  const floats = new Float32Array(count * cols);
  dequantizeNative(quantTypeInfo(type).ggmlType, content, floats, `tensor '${name}'`);
  return floats;
}
