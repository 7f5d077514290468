// Weights stored in 8-bit floats: each is a code times a scale, which stands for the whole tensor,
// for one of several matrices, for a row, or for a block of 128 × 128 (DeepSeek-V3, arXiv
// 2412.19437, section 3.3).
import { TinferError } from "../core/errors.ts";
import { readFileRange } from "../weights/file-range.ts";
import { float8Values } from "../weights/float8.ts";
import { release } from "../weights/release.ts";
import { fileRows, type RowSource, readFloats } from "../weights/rows.ts";
import type { SafeTensor } from "../weights/safetensors.ts";

const defaultBlock = [128, 128] as const;

export interface Float8Options {
  /** Path of the file that holds the tensor, and of that with its scale. */
  readonly pathOf: (tensor: SafeTensor) => string;
  readonly scale: SafeTensor | undefined;
  /** Rows and columns of a block as config.json has them. */
  readonly block: readonly number[] | undefined;
}

/** The values as F32 rows. */
export function float8Rows(tensor: SafeTensor, options: Float8Options): RowSource {
  const cols = tensor.shape.at(-1) ?? 1;
  const numRows = tensor.shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const values = float8Values[tensor.dtype as "F8_E4M3" | "F8_E5M2"];
  const path = options.pathOf(tensor);
  const scales = options.scale && new Scales(tensor, options.scale, options);
  return {
    ...{ type: "f32", numRows, cols },
    read: (first, count) => {
      const codes = readFileRange(path, tensor.offset + first * cols, count * cols);
      const floats = new Float32Array(codes.length);
      for (let row = 0; row < count; row++) {
        const start = row * cols;
        for (let i = start; i < start + cols; i++) floats[i] = values[codes[i]!]!;
        scales?.apply(floats.subarray(start, start + cols), first + row);
      }
      release(codes);
      return new Uint8Array(floats.buffer);
    },
  };
}

class Scales {
  readonly #blockRows: number;
  readonly #blockCols: number;
  /** Scales per row of blocks. */
  readonly #perRow: number;
  readonly #tensor: SafeTensor;
  readonly #path: string;
  /** Read when first needed. */
  #values: Float32Array | undefined;

  constructor(tensor: SafeTensor, scale: SafeTensor, options: Float8Options) {
    const cols = tensor.shape.at(-1) ?? 1;
    const [blockRows, blockCols] = blockOf(tensor, scale, options.block ?? defaultBlock);
    this.#blockRows = blockRows;
    this.#blockCols = blockCols;
    this.#perRow = Math.ceil(cols / blockCols);
    this.#tensor = scale;
    this.#path = options.pathOf(scale);
  }

  apply(row: Float32Array, index: number): void {
    this.#values ??= scaleValues(this.#tensor, this.#path);
    const first = Math.floor(index / this.#blockRows) * this.#perRow;
    const blockCols = this.#blockCols;
    for (let block = 0; block < this.#perRow; block++) {
      const scale = this.#values[first + block]!;
      const end = Math.min(row.length, (block + 1) * blockCols);
      for (let i = block * blockCols; i < end; i++) row[i]! *= scale;
    }
  }
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
  const [scaleRows, scaleCols] = scale.shape;
  const fits =
    scale.shape.length === 2 &&
    scaleRows === Math.ceil(rows / blockRows) &&
    scaleCols === Math.ceil(cols / blockCols);
  if (fits) return [blockRows, blockCols] as const;
  const shapes = `[${scale.shape.join(", ")}] does not cover [${rows}, ${cols}]`;
  const blocks = `in blocks of ${blockRows} × ${blockCols}`;
  throw new TinferError("invalidFile", `tensor '${scale.name}': ${shapes} ${blocks}`, {
    hint: "config.json and the weights do not belong together: download both again",
  });
}

function scaleValues(scale: SafeTensor, path: string): Float32Array {
  const count = scale.shape.reduce((product, size) => product * size, 1);
  const { dtype } = scale;
  if (dtype === "F8_E8M0") {
    const codes = readFileRange(path, scale.offset, count);
    return Float32Array.from(codes, (code) => float8Values.F8_E8M0[code]!);
  }
  const types = { F32: "f32", F16: "f16", BF16: "bf16" } as const;
  const type = types[dtype as keyof typeof types];
  if (type !== undefined) {
    return readFloats(fileRows({ path, offset: scale.offset }, type, [1, count]), 0, 1);
  }
  throw new TinferError("unsupported", `tensor '${scale.name}': scales of dtype ${dtype}`, {
    hint: "scales are F32, F16, BF16 or F8_E8M0; take another copy of the model",
  });
}
