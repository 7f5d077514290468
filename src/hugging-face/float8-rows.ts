// Weights stored in 8-bit floats: each is a code times a scale, which stands for the whole tensor,
// for one of several matrices, for a row, or for a block of 128 × 128 (DeepSeek-V3, arXiv
// 2412.19437, section 3.3).
import { TinferError } from "../core/errors.ts";
import { readFileRange } from "../weights/file-range.ts";
import { type Float8Type, float8Values } from "../weights/float8.ts";
import { fileRows, type RowSource, readFloats } from "../weights/rows.ts";
import type { SafeDtype, SafeTensor } from "../weights/safetensors.ts";
import { areUsableBlocks, type RowScales, unscaledRows } from "../weights/scaled-rows.ts";

const defaultBlock = [128, 128] as const;

export const float8Dtypes: Partial<Record<SafeDtype, Float8Type>> = {
  F8_E4M3: "f8_e4m3",
  F8_E5M2: "f8_e5m2",
};

export interface Float8Options {
  readonly type: Float8Type;
  /** Path of the file that holds the tensor, and of that with its scale. */
  readonly pathOf: (tensor: SafeTensor) => string;
  readonly scale: SafeTensor | undefined;
  /** Rows and columns of a block as config.json has them. */
  readonly block: readonly number[] | undefined;
}

/** The codes with their scales; as F32 where no kernel takes blocks of that width. */
export function float8Rows(tensor: SafeTensor, options: Float8Options): RowSource {
  const { type, pathOf, scale, block = defaultBlock } = options;
  const cols = tensor.shape.at(-1) ?? 1;
  const numRows = tensor.shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const place = { path: pathOf(tensor), offset: tensor.offset };
  const rows = fileRows(place, type, [numRows, cols]);
  if (scale === undefined) return rows;
  const [blockRows, blockCols] = blockOf(tensor, scale, block);
  const shape = [Math.ceil(numRows / blockRows), Math.ceil(cols / blockCols)] as const;
  const scales: RowScales = { rows: scaleRows(scale, pathOf(scale), shape), blockRows, blockCols };
  const scaled = { ...rows, scales };
  return areUsableBlocks(blockCols, cols) ? scaled : unscaledRows(scaled);
}

/** Rows and columns that share a scale, from the shape of the scales. */
function blockOf({ shape }: SafeTensor, scale: SafeTensor, block: readonly number[]) {
  const cols = shape.at(-1) ?? 1;
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const count = scale.shape.reduce((product, size) => product * size, 1);
  if (count === 1) return [rows, cols] as const;
  const isPerRow = count === rows && (scale.shape.length === 1 || scale.shape.at(-1) === 1);
  if (isPerRow) return [1, cols] as const;
  // Stacked matrices, as of experts, may have one each.
  if (shape.length === 3 && count === shape[0]) return [rows / count, cols] as const;
  const [blockRows = 128, blockCols = 128] = block;
  // Where matrices are stacked, blocks must not reach from one into the next.
  const areApart = shape.length === 2 || shape.at(-2)! % blockRows === 0;
  const fits =
    scale.shape.length === shape.length &&
    count === Math.ceil(rows / blockRows) * Math.ceil(cols / blockCols) &&
    scale.shape.at(-1) === Math.ceil(cols / blockCols);
  if (fits && areApart) return [blockRows, blockCols] as const;
  const shapes = `[${scale.shape.join(", ")}] does not cover [${rows}, ${cols}]`;
  const blocks = `in blocks of ${blockRows} × ${blockCols}`;
  throw new TinferError("invalidFile", `tensor '${scale.name}': ${shapes} ${blocks}`, {
    hint: "config.json and the weights do not belong together: download both again",
  });
}

/** The scales as F32, whatever the file has. */
function scaleRows(
  scale: SafeTensor,
  path: string,
  [numRows, cols]: readonly [number, number],
): RowSource {
  const { dtype, offset } = scale;
  if (dtype === "F8_E8M0") {
    const read = (first: number, count: number) => {
      const codes = readFileRange(path, offset + first * cols, count * cols);
      const powers = Float32Array.from(codes, (code) => float8Values.f8_e8m0[code]!);
      return new Uint8Array(powers.buffer);
    };
    return { type: "f32", numRows, cols, read };
  }
  const types = { F32: "f32", F16: "f16", BF16: "bf16" } as const;
  const type = types[dtype as keyof typeof types];
  if (type !== undefined) {
    const rows = fileRows({ path, offset }, type, [numRows, cols]);
    if (type === "f32") return rows;
    const read = (first: number, count: number) => {
      return new Uint8Array(readFloats(rows, first, count).buffer);
    };
    return { type: "f32", numRows, cols, read };
  }
  throw new TinferError("unsupported", `tensor '${scale.name}': scales of dtype ${dtype}`, {
    hint: "scales are F32, F16, BF16 or F8_E8M0; take another copy of the model",
  });
}
