// Reads single tensors of a model into JavaScript memory: for the reference executor, for
// tests and for conversions. Inference maps the files natively and never comes here.
import { dequantizeRow } from "./dequantize.ts";
import { readFileRange } from "./file-range.ts";
import { isInFile, type ModelHeader, type ModelTensor } from "./model-header.ts";
import { derivedContent } from "./rows.ts";

type Source = Pick<ModelHeader, "paths">;

/** The tensor's bytes, as they are in the file where they lie in one. */
export function readTensorBytes(source: Source, tensor: ModelTensor): Uint8Array<ArrayBuffer> {
  if (!isInFile(tensor)) return new Uint8Array(Buffer.concat([...derivedContent(tensor, 1)]));
  return readFileRange(source.paths[tensor.fileIndex]!, tensor.offset, tensor.bytes);
}

/** The tensor's elements in f32, row-major, whatever its type. */
export function readTensorFloats(source: Source, tensor: ModelTensor): Float32Array<ArrayBuffer> {
  const numElements = tensor.shape.reduce((product, dimension) => product * dimension, 1);
  const floats = new Float32Array(numElements);
  dequantizeRow(tensor.type, readTensorBytes(source, tensor), floats);
  return floats;
}
