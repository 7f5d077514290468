// Brings tensors that are filled piece by piece into panels, the interleaved layout, so that every
// piece takes its share of the time.
import { interleaveRows } from "../native/interleave.ts";
import { panelRows } from "../plan/panels.ts";
import type { FileTensor } from "../weights/model-header.ts";
import { quantTypeInfo, rowBytes } from "../weights/quant-types.ts";

/** Neighbouring bytes of a file, or of other memory. */
export interface Stretch {
  readonly offset: number;
  readonly bytes: number;
}

export type PanelTensor = Pick<FileTensor, "offset" | "bytes" | "type" | "shape">;

/**
 * Interleaves those panels of a tensor that `piece` has made whole, where it is filled from front
 * to back. `start` is the address of offset 0.
 */
export function interleaveFilled(start: number, tensor: PanelTensor, piece: Stretch): void {
  const { offset, bytes, type, shape } = tensor;
  const cols = shape.at(-1)!;
  const panelBytes = panelRows * rowBytes(type, cols);
  const panelsUpTo = (end: number) =>
    Math.floor(Math.min(Math.max(end - offset, 0), bytes) / panelBytes);
  const first = panelsUpTo(piece.offset);
  const count = panelsUpTo(piece.offset + piece.bytes) - first;
  if (count === 0) return;
  const address = start + offset + first * panelBytes;
  interleaveRows(address, count * panelRows, cols, quantTypeInfo(type).ggmlType);
}
