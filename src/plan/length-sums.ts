// Lengths of the rows of W + σ B A for every σ: of each row the three sums that its square is made
// of, |W|² + 2σ W·(B A) + σ² |B A|². W is read in runs of rows; B A is never made.

export interface LengthSource {
  readonly rows: number;
  readonly cols: number;
  readonly rank: number;
  /** `[rank, cols]`; for columns `[rows, rank]`. */
  readonly a: Float32Array;
  /** `[rows, rank]`; for columns `[cols, rank]`. */
  readonly b: Float32Array;
  /** The length that each row, or column, gets; NaN: that of W. */
  readonly wanted: Float32Array;
}

export interface RowLengthSource extends LengthSource {
  /** Of rows `first` to `first + count` of W: |w|² and w · each of `vectors`. */
  sums(first: number, count: number, vectors: Float32Array): Float64Array;
}

export interface ColumnLengthSource extends LengthSource {
  /** Rows `first` to `first + count` of W. */
  read(first: number, count: number): Float32Array;
}

/** Values of W in one run. */
const valuesPerRun = 2 ** 22;

/** `[4, rows]`: wanted lengths, |W|², 2 W·(B A) and |B A|² of each row. */
export function rowSums(source: RowLengthSource): Float32Array {
  const { rows, cols, rank, a, b } = source;
  const gram = gramOf(rank, cols, (r, k) => a[r * cols + k]!);
  const sums = new LengthSums(source, rows, gram);
  const rowsPerRun = Math.max(1, Math.floor(valuesPerRun / cols));
  for (let first = 0; first < rows; first += rowsPerRun) {
    const count = Math.min(rowsPerRun, rows - first);
    const found = source.sums(first, count, a);
    for (let i = 0; i < count; i++) {
      const row = first + i;
      const [start, end] = [i * (1 + rank), (i + 1) * (1 + rank)];
      const products = found.subarray(start + 1, end);
      sums.set(row, found[start]!, products, b.subarray(row * rank, (row + 1) * rank));
    }
  }
  return sums.values;
}

/** `[4, cols]`: the same of each column, for tables whose rows are inputs. */
export function columnSums(source: ColumnLengthSource): Float32Array {
  const { rows, cols, rank, a, b } = source;
  const gram = gramOf(rank, rows, (r, row) => a[row * rank + r]!);
  const sums = new LengthSums(source, cols, gram);
  const squares = new Float64Array(cols);
  const products = new Float64Array(rank * cols);
  const rowsPerRun = Math.max(1, Math.floor(valuesPerRun / cols));
  for (let first = 0; first < rows; first += rowsPerRun) {
    const count = Math.min(rowsPerRun, rows - first);
    const values = source.read(first, count);
    for (let i = 0; i < count; i++) {
      const w = values.subarray(i * cols, (i + 1) * cols);
      for (let col = 0; col < cols; col++) squares[col]! += w[col]! * w[col]!;
      for (let r = 0; r < rank; r++) {
        const factor = a[(first + i) * rank + r]!;
        const own = products.subarray(r * cols, (r + 1) * cols);
        for (let col = 0; col < cols; col++) own[col]! += factor * w[col]!;
      }
    }
  }
  for (let col = 0; col < cols; col++) {
    const own = Float64Array.from({ length: rank }, (_, r) => products[r * cols + col]!);
    sums.set(col, squares[col]!, own, b.subarray(col * rank, (col + 1) * rank));
  }
  return sums.values;
}

/** A Aᵀ `[rank, rank]`. */
function gramOf(rank: number, length: number, at: (r: number, i: number) => number) {
  const gram = new Float64Array(rank * rank);
  for (let r = 0; r < rank; r++) {
    for (let s = 0; s <= r; s++) {
      let sum = 0;
      for (let i = 0; i < length; i++) sum += at(r, i) * at(s, i);
      gram[r * rank + s] = sum;
      gram[s * rank + r] = sum;
    }
  }
  return gram;
}

class LengthSums {
  readonly values: Float32Array;
  readonly #count: number;
  readonly #rank: number;
  readonly #gram: Float64Array;
  readonly #wanted: Float32Array;

  constructor({ rank, wanted }: LengthSource, count: number, gram: Float64Array) {
    this.values = new Float32Array(4 * count);
    this.#count = count;
    this.#rank = rank;
    this.#gram = gram;
    this.#wanted = wanted;
  }

  /** `products` `[rank]` are of W with each row of A, `b` `[rank]` is the row of B. */
  set(index: number, square: number, products: Float64Array, b: Float32Array): void {
    let [cross, update] = [0, 0];
    for (let r = 0; r < this.#rank; r++) {
      cross += b[r]! * products[r]!;
      for (let s = 0; s < this.#rank; s++) {
        update += b[r]! * b[s]! * this.#gram[r * this.#rank + s]!;
      }
    }
    const wanted = this.#wanted[index]!;
    const row = [Number.isNaN(wanted) ? Math.sqrt(square) : wanted, square, 2 * cross, update];
    row.forEach((value, part) => {
      this.values[part * this.#count + index] = value;
    });
  }
}
