// Where the tables of a plan's model code lie, in memory of their own.
import type { Table, Weight } from "./ops.ts";

/** Tables begin on cache lines. */
const alignment = 64;
/** Kernels may load this many bytes past a weight's end. */
export const mostOverRead = 64;

export interface TableLayout {
  /** In bytes. */
  readonly offsets: ReadonlyMap<Table, number>;
  /** What all of them take. */
  readonly bytes: number;
}

export function layoutTables(weights: readonly Weight[]): TableLayout {
  const offsets = new Map<Table, number>();
  let bytes = 0;
  for (const { constant } of weights) {
    if (constant === undefined || offsets.has(constant.table)) continue;
    offsets.set(constant.table, bytes);
    bytes += Math.ceil((constant.table.length * 4 + mostOverRead) / alignment) * alignment;
  }
  return { offsets, bytes };
}
