// Reference dequantisation in plain TypeScript: clear, not fast, rounded as ggml rounds. The
// oracle for the native kernels; the formats themselves are in `dequantize-*.ts`.
import { assert, TinferError } from "../core/errors.ts";
import type { DequantizeBlock } from "./dequantize-block.ts";
import { dequantizeCodebook } from "./dequantize-codebook.ts";
import { dequantizeFloat } from "./dequantize-float.ts";
import { dequantizeK } from "./dequantize-k.ts";
import { dequantizeLegacy } from "./dequantize-legacy.ts";
import { dequantizePointTypes } from "./dequantize-points.ts";
import { type QuantType, quantTypeInfo } from "./quant-types.ts";

const byType: Partial<Record<QuantType, DequantizeBlock>> = {
  ...dequantizeFloat,
  ...dequantizeLegacy,
  ...dequantizeK,
  ...dequantizeCodebook,
  ...dequantizePointTypes,
};

export function canDequantize(type: QuantType): boolean {
  return byType[type] !== undefined;
}

/** Expands whole quant blocks: `bytes` must be exactly those of `output.length` elements. */
export function dequantizeRow(type: QuantType, bytes: Uint8Array, output: Float32Array): void {
  const dequantizeBlock = byType[type];
  if (dequantizeBlock === undefined) {
    throw new TinferError("unsupported", `weights of type ${type} cannot be expanded yet`, {
      hint: "take another quantisation of the model, such as Q4_K_M",
    });
  }
  const { quantBlockSize, quantBlockBytes } = quantTypeInfo(type);
  const numBlocks = output.length / quantBlockSize;
  assert(
    Number.isInteger(numBlocks) && bytes.length === numBlocks * quantBlockBytes,
    `${bytes.length} bytes of ${type} are not ${output.length} elements`,
  );
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = 0; block < numBlocks; block++) {
    dequantizeBlock(view, block * quantBlockBytes, output, block * quantBlockSize);
  }
}
