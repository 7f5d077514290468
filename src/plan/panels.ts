// Weights that lie interleaved, 16 rows side by side: a panel (kernels/interleave.zig). Such a
// tensor is whole panels, and what a plan reads of it is whole panels in each quarter.
import type { Weight } from "./ops.ts";

export const panelRows = 16;

/** Whether the weight is whole panels of its tensor, which has `tensorRows` rows. */
export function isWholePanels({ rows, slice }: Weight, tensorRows: number): boolean {
  const firstRow = slice === undefined ? 0 : (slice.first * tensorRows) / slice.count;
  return [tensorRows, firstRow, rows / 4].every((count) => count % panelRows === 0);
}
