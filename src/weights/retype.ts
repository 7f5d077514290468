// A model whose matrices have other types than its files: what changes is made while loading, or
// while a file is written.
import { TinferError } from "../core/errors.ts";
import { isFloat8 } from "./float8.ts";
import { isInFile, type ModelHeader, type ModelTensor } from "./model-header.ts";
import type { QuantType } from "./quant-types.ts";
import { isSourceType } from "./quantize.ts";
import { derivedTensor, fileRows, type RowSource } from "./rows.ts";

/** The header with each tensor in the type that `typeOf` wants of it. */
export function retyped(
  header: ModelHeader,
  typeOf: (tensor: ModelTensor) => QuantType,
): ModelHeader {
  const tensors = new Map<string, ModelTensor>();
  for (const tensor of header.tensors.values()) {
    const type = typeOf(tensor);
    const { name, shape } = tensor;
    if (type === tensor.type) tensors.set(name, tensor);
    else tensors.set(name, derivedTensor(name, type, shape, rowsOf(header, tensor)));
  }
  return { ...header, tensors };
}

/** A tensor's rows before they became its type. */
export function rowsOf({ paths }: Pick<ModelHeader, "paths">, tensor: ModelTensor): RowSource {
  if (!isInFile(tensor)) return tensor.rows;
  const { type, shape, fileIndex, offset, name, scales } = tensor;
  if (!isSourceType(type) && !isFloat8(type)) throw notFromBlocks(name, type);
  const cols = shape.at(-1) ?? 1;
  const numRows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const rows = fileRows({ path: paths[fileIndex]!, offset }, type, [numRows, cols]);
  if (scales === undefined) return rows;
  const { tensor: factors, blockRows, blockCols } = scales;
  return { ...rows, scales: { rows: rowsOf({ paths }, factors), blockRows, blockCols } };
}

/** The header with F32 for 8-bit floats, which GGUF does not have. */
export function withoutFloat8(header: ModelHeader): ModelHeader {
  return retyped(header, ({ type }) => (isFloat8(type) ? "f32" : type));
}

function notFromBlocks(name: string, type: QuantType): TinferError {
  return new TinferError("unsupported", `tensor '${name}' is quantised already (${type})`, {
    hint: "errors would add up: start from F32, F16 or BF16 weights",
  });
}
