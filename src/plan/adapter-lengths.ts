// The tables that set the lengths of an adapter's outputs (DoRA): for every matrix the sums of
// `length-sums.ts`, made from the model's weights when a session begins.
import { assert } from "../core/errors.ts";
import type { Factor, Update } from "./adapters.ts";
import { columnSums, type LengthSource, rowSums } from "./length-sums.ts";
import type { ExpertWeights, Table } from "./ops.ts";
import type { WeightReader } from "./weight-table.ts";

/**
 * How outputs lie: the rows of a product's matrices, their columns where those are needed
 * transposed, or the columns of a table that tokens look up.
 */
export type OutputPlace = "rows" | "columns" | "table";

/** `[4 * weights, outputs]`; `reader` is asked for when the table is made. */
export function lengthTable(
  update: Update,
  weights: ExpertWeights,
  place: OutputPlace,
  reader: () => WeightReader,
): { table: Table; rows: number; cols: number } {
  const { rows, cols } = weights[0]!;
  const width = place === "rows" ? rows : cols;
  const height = 4 * weights.length;
  const make = () => {
    const values = { a: valuesOf(update.a), b: valuesOf(update.b) };
    const wanted = update.lengths!.values.make();
    const read = reader();
    const all = new Float32Array(height * width);
    weights.forEach((_, index) => {
      const first = place === "rows" ? update.places[index]!.row : index * width;
      const source = {
        ...{ rows, cols, rank: update.rank, wanted: wanted.subarray(first, first + width) },
        ...factorsOf(update, index, place, { ...values, rows, cols }),
        read: (row: number, count: number) => read.rows(index, row, count),
        sums: (row: number, count: number, vectors: Float32Array) =>
          read.sums(index, row, count, vectors),
      };
      all.set(place === "rows" ? rowSums(source) : columnSums(source), index * 4 * width);
    });
    return all;
  };
  return { table: { length: height * width, make }, rows: height, cols: width };
}

function valuesOf({ name, constant }: Factor): Float32Array {
  assert(constant !== undefined, `${name}: lengths come with factors that are tables`);
  return constant.make();
}

/** One matrix' parts of the factors, as the sums take them. */
function factorsOf(
  { places, rank }: Update,
  index: number,
  place: OutputPlace,
  { a, b, rows, cols }: { a: Float32Array; b: Float32Array; rows: number; cols: number },
): Pick<LengthSource, "a" | "b"> {
  if (place === "table") return { a, b };
  const from = places[index]!;
  const ownA = a.subarray(from.a * cols, (from.a + rank) * cols);
  const ownB = b.subarray(from.b * rank, (from.b + rows) * rank);
  if (place === "rows") return { a: ownA, b: ownB };
  const turnedA = Float32Array.from(
    ownA,
    (_, i) => ownA[(i % rank) * cols + Math.floor(i / rank)]!,
  );
  return { a: ownB, b: turnedA };
}
