// Experts of gpt-oss: blocks of 32 weights in 4 bits with a scale, kept in two tensors. GGUF has
// each scale in front of its block, and the halves of a block in the halves of its bytes.
import { TinferError } from "../core/errors.ts";
import { readFileRange } from "../weights/file-range.ts";
import { release } from "../weights/release.ts";
import type { RowSource } from "../weights/rows.ts";
import type { SafeTensor } from "../weights/safetensors.ts";

const blockBytes = 16;
const blockSize = 32;

/** `blocks` `[…, cols / 32, 16]` and `scales` `[…, cols / 32]`. */
export function mxfp4Rows(
  blocks: SafeTensor,
  scales: SafeTensor | undefined,
  pathOf: (tensor: SafeTensor) => string,
): RowSource {
  const perRow = blocks.shape.at(-2) ?? 0;
  const fits = scales !== undefined && `${[...scales.shape, blockBytes]}` === `${blocks.shape}`;
  if (!fits || scales.dtype !== "U8" || blocks.dtype !== "U8") {
    throw new TinferError("invalidFile", `tensor '${blocks.name}' has no scales that fit`, {
      hint: "download all files of the model again",
    });
  }
  const numRows = blocks.bytes / (perRow * blockBytes);
  return {
    ...{ type: "mxfp4", numRows, cols: perRow * blockSize },
    read: (first, count) => {
      const numBlocks = count * perRow;
      const start = first * perRow;
      const from = blocks.offset + start * blockBytes;
      const codes = readFileRange(pathOf(blocks), from, numBlocks * blockBytes);
      const exponents = readFileRange(pathOf(scales), scales.offset + start, numBlocks);
      const output = new Uint8Array(numBlocks * (blockBytes + 1));
      for (let block = 0; block < numBlocks; block++) {
        const at = block * (blockBytes + 1);
        output[at] = exponents[block]!;
        repack(codes.subarray(block * blockBytes, (block + 1) * blockBytes), output, at + 1);
      }
      release(codes);
      release(exponents);
      return output;
    },
  };
}

/** Byte k holds weights 2 k and 2 k + 1; in GGUF byte j holds weights j and j + 16. */
function repack(codes: Uint8Array, output: Uint8Array, at: number): void {
  const weight = (index: number) => (codes[index >> 1]! >> (4 * (index & 1))) & 15;
  for (let j = 0; j < blockBytes; j++) output[at + j] = weight(j) | (weight(j + 16) << 4);
}
