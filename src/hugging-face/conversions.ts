// Changes of bytes between Hugging Face's and GGUF's form of a tensor; all work row by row.
import { assert, TinferError } from "../core/errors.ts";
import { mappedRows, reorderedRows, slicedRows, transposedRows } from "../weights/rows.ts";
import type { Conversion, SourceTensor } from "./family.ts";
import type { JsonObject } from "./json-file.ts";

export const numHeads = (config: JsonObject) =>
  config.requiredCount("num_attention_heads", "n_head", "num_heads");

export const numKvHeads = (config: JsonObject) =>
  config.count("num_key_value_heads", "n_head_kv") ?? numHeads(config);

export const hiddenSize = (config: JsonObject) =>
  config.requiredCount("hidden_size", "n_embd", "d_model", "dim");

export const headDim = (config: JsonObject) =>
  config.count("head_dim") ?? Math.floor(hiddenSize(config) / numHeads(config));

/** A vector's elements as rows, so that reordering treats biases like matrices. */
function asColumn({ rows, shape }: SourceTensor): SourceTensor["rows"] {
  if (shape.length > 1) return rows;
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
      const text = `${rows.numRows} rows are not ${heads(config)} heads of even width`;
      throw new TinferError("invalidFile", text, {
        hint: "config.json and the weights do not belong together: download both again",
      });
    }
    const order = (row: number) => {
      const inHead = row % dim;
      return row - inHead + (inHead % 2) * (dim / 2) + (inHead >> 1);
    };
    return { shape: tensor.shape, rows: reorderedRows(rows, order) };
  };
}

/** Norms that multiply by 1 + w. */
export const addOne: Conversion = ({ shape, rows }) => ({
  shape,
  rows: mappedRows(rows, (value) => value + 1),
});

export const transpose: Conversion = ({ shape, rows }) => {
  assert(shape.length === 2, "a matrix is transposed");
  return { shape: shape.toReversed(), rows: transposedRows(rows) };
};

/** Rows from `start` to `end`, as the configuration says. */
export function takeRows(range: (config: JsonObject) => readonly [number, number]): Conversion {
  return (tensor, config) => {
    const [start, end] = range(config);
    const rows = asColumn(tensor);
    if (end > rows.numRows) {
      const text = `${rows.numRows} rows where config.json asks for ${end}`;
      throw new TinferError("invalidFile", text, {
        hint: "config.json and the weights do not belong together: download both again",
      });
    }
    const shape =
      tensor.shape.length === 1 ? [end - start] : [end - start, ...tensor.shape.slice(1)];
    return { shape, rows: slicedRows(rows, start, end - start) };
  };
}

/** Without dimensions of one, which GGUF leaves away. */
export const squeeze: Conversion = (tensor) => ({
  ...tensor,
  shape: tensor.shape.filter((dimension) => dimension !== 1),
});
