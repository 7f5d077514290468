// Changes of bytes between Hugging Face's and GGUF's form of a tensor; all work row by row.
import { TinferError } from "../core/errors.ts";
import {
  mappedRows,
  pickedRows,
  readFloats,
  slicedColumns,
  slicedRows,
  transposedMatrices,
} from "../weights/rows.ts";
import { unscaledRows } from "../weights/scaled-rows.ts";
import type { Conversion, RowOrigin, SourceTensor } from "./family.ts";
import type { JsonObject } from "./json-file.ts";

export const numHeads = (config: JsonObject) =>
  config.requiredCount("num_attention_heads", "n_head", "num_heads");

export const numKvHeads = (config: JsonObject) =>
  config.count("num_key_value_heads", "n_head_kv") ?? numHeads(config);

export const hiddenSize = (config: JsonObject) =>
  config.requiredCount("hidden_size", "n_embd", "d_model", "dim");

export const headDim = (config: JsonObject) =>
  config.count("head_dim") ?? Math.floor(hiddenSize(config) / numHeads(config));

const withOrigin = (rowOrigin: RowOrigin, convert: Conversion): Conversion =>
  Object.assign(convert, { rowOrigin });

/** A vector's elements as rows, so that reordering treats biases like matrices. */
function asColumn({ rows: given, shape }: SourceTensor): SourceTensor["rows"] {
  if (shape.length > 1) return given;
  const rows = unscaledRows(given);
  const count = shape[0] ?? 1;
  return {
    ...{ type: rows.type, numRows: count, cols: 1 },
    read: (first, length) => {
      const all = rows.read(0, 1);
      const bytes = all.length / count;
      return all.slice(first * bytes, (first + length) * bytes);
    },
  };
}

/** Rotary pairs lie side by side in GGUF, half a head apart in Hugging Face's form. */
export function interleavePairs(heads: (config: JsonObject) => number): Conversion {
  return (tensor, config) => {
    const rows = asColumn(tensor);
    const dim = rows.numRows / heads(config);
    if (!Number.isInteger(dim) || dim % 2 !== 0) {
      throw notTogether(`${rows.numRows} rows are not ${heads(config)} heads of even width`);
    }
    const order = (row: number) => {
      const inHead = row % dim;
      return row - inHead + (inHead % 2) * (dim / 2) + (inHead >> 1);
    };
    return { shape: tensor.shape, rows: pickedRows(rows, rows.numRows, order) };
  };
}

/** Norms that multiply by 1 + w. */
export const addOne: Conversion = ({ shape, rows }) => ({
  shape,
  rows: mappedRows(rows, (value) => value + 1),
});

/** Matrices whose rows are inputs; biases stay. Of more dimensions the last two change places. */
export const transpose = withOrigin("columns", (tensor) => {
  const { shape, rows } = tensor;
  if (shape.length < 2) return tensor;
  const height = shape.at(-2)!;
  const matrices = { start: 0, stride: height, numRows: height };
  const turned = [...shape.slice(0, -2), shape.at(-1)!, height];
  return { shape: turned, rows: transposedMatrices(rows, matrices) };
});

/** One of two matrices that lie on each other (`[…, 2 n, cols]`), or alternate row by row. */
export function half(which: 0 | 1, layout: "stacked" | "alternating" = "stacked"): Conversion {
  return ({ shape, rows }) => {
    const height = shape.length === 1 ? shape[0]! : shape.at(-2)!;
    if (height % 2 !== 0) throw notTogether(`${height} rows are not two equal halves`);
    const size = height / 2;
    const order = (row: number) => {
      const inMatrix = row % size;
      const start = (row - inMatrix) * 2;
      if (layout === "alternating") return start + inMatrix * 2 + which;
      return start + which * size + inMatrix;
    };
    const halved = [...shape.slice(0, -2), size, shape.at(-1)!];
    return { shape: halved, rows: pickedRows(rows, rows.numRows / 2, order) };
  };
}

/**
 * One of two matrices whose rows are inputs (`[…, inputs, 2 n]`), side by side or with columns that
 * alternate, transposed.
 */
export function transposedHalf(
  which: 0 | 1,
  layout: "stacked" | "alternating" = "stacked",
): Conversion {
  return withOrigin("columns", (tensor, config) => {
    const { shape, rows } = tensor;
    if (layout === "alternating") return half(which, layout)(transpose(tensor, config), config);
    const cols = rows.cols / 2;
    if (!Number.isInteger(cols)) throw notTogether(`${rows.cols} columns are not two equal halves`);
    const halved = [...shape.slice(0, -1), cols];
    return transpose({ shape: halved, rows: slicedColumns(rows, which * cols, cols) }, config);
  });
}

/** A matrix without its first rows. */
export function withoutRows(count: (config: JsonObject) => number): Conversion {
  return ({ shape, rows }, config) => {
    const left = rows.numRows - count(config);
    if (left < 1) throw notTogether(`${rows.numRows} rows, of which ${count(config)} are not used`);
    return {
      shape: [left, ...shape.slice(1)],
      rows: slicedRows(rows, count(config), left),
    };
  };
}

/** Every second element of vectors `[…, 2 n]`. */
export function halfOfVectors(which: 0 | 1): Conversion {
  return ({ shape, rows }) => {
    const cols = rows.cols / 2;
    if (!Number.isInteger(cols)) throw notTogether(`${rows.cols} elements are not two halves`);
    const read = (first: number, count: number) => {
      const floats = readFloats(rows, first, count);
      const picked = Float32Array.from({ length: count * cols }, (_, i) => floats[2 * i + which]!);
      return new Uint8Array(picked.buffer);
    };
    const { numRows } = rows;
    return { shape: [...shape.slice(0, -1), cols], rows: { type: "f32", numRows, cols, read } };
  };
}

function notTogether(problem: string): TinferError {
  return new TinferError("invalidFile", problem, {
    hint: "config.json and the weights do not belong together: download both again",
  });
}

/** DeepSeek's kv_b: heads of `[nope + value, latent]`; keys are needed transposed. */
export function latentHalf(which: "keys" | "values"): Conversion {
  const convert: Conversion = ({ rows, shape }, config) => {
    const keyDim = config.requiredCount("qk_nope_head_dim");
    const valueDim = config.requiredCount("v_head_dim");
    const stride = keyDim + valueDim;
    const heads = rows.numRows / stride;
    const latent = shape.at(-1)!;
    if (!Number.isInteger(heads)) throw notTogether(`${rows.numRows} rows: no heads of ${stride}`);
    if (which === "keys") {
      const turned = transposedMatrices(rows, { start: 0, stride, numRows: keyDim });
      return { shape: [heads, latent, keyDim], rows: turned };
    }
    const order = (row: number) => Math.floor(row / valueDim) * stride + keyDim + (row % valueDim);
    const values = pickedRows(rows, heads * valueDim, order);
    return { shape: [heads, valueDim, latent], rows: values };
  };
  return which === "keys" ? withOrigin("headColumns", convert) : convert;
}

/** Without dimensions of one, which GGUF leaves away. */
export const squeeze = withOrigin("sameRows", (tensor) => ({
  ...tensor,
  shape: tensor.shape.filter((dimension) => dimension !== 1),
}));
