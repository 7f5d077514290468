// The sums that lengths of changed rows and columns follow from, against the lengths themselves.
import { expect, test } from "bun:test";
import { columnSums, rowSums } from "../../src/plan/length-sums.ts";
import { Random } from "../kernel/random.ts";

const random = new Random("length sums");
const [rows, cols, rank] = [7, 33, 3];
const w = random.normals(rows * cols);
const wanted = Float32Array.from({ length: cols }, (_, i) => (i === 2 ? Number.NaN : i + 1));
const read = (first: number, count: number) => w.subarray(first * cols, (first + count) * cols);
const sums = (first: number, count: number, vectors: Float32Array) => {
  const width = 1 + vectors.length / cols;
  const found = new Float64Array(count * width);
  for (let i = 0; i < count * width; i++) {
    const [row, which] = [Math.floor(i / width), i % width];
    const w = read(first + row, 1);
    const vector = which === 0 ? w : vectors.subarray((which - 1) * cols, which * cols);
    found[i] = w.reduce((sum, value, k) => sum + value * vector[k]!, 0);
  }
  return found;
};
const scales = [0, 1, -0.5, 20];

/** Σ over r of x[i, r] y[r, k]. */
const product = (at: (r: number) => number) =>
  Array.from({ length: rank }, (_, r) => at(r)).reduce((sum, value) => sum + value, 0);

function check(
  found: Float32Array,
  count: number,
  value: (index: number, sigma: number) => number,
) {
  const part = (which: number, index: number) => found[which * count + index]!;
  for (let index = 0; index < count; index++) {
    for (const sigma of scales) {
      const square = part(1, index) + sigma * (part(2, index) + sigma * part(3, index));
      expect(square / value(index, sigma)).toBeCloseTo(1, 4);
    }
    const own = Math.sqrt(value(index, 0));
    expect(part(0, index) / (index === 2 ? own : index + 1)).toBeCloseTo(1, 6);
  }
}

test("of rows", () => {
  const [a, b] = [random.normals(rank * cols), random.normals(rows * rank)];
  const of = { rows, cols, rank, a, b, wanted: wanted.subarray(0, rows), sums };
  check(rowSums(of), rows, (row, sigma) => {
    let square = 0;
    for (let k = 0; k < cols; k++) {
      const update = product((r) => b[row * rank + r]! * a[r * cols + k]!);
      square += (w[row * cols + k]! + sigma * update) ** 2;
    }
    return square;
  });
});

test("of columns", () => {
  const [a, b] = [random.normals(rows * rank), random.normals(cols * rank)];
  check(columnSums({ rows, cols, rank, a, b, wanted, read }), cols, (col, sigma) => {
    let square = 0;
    for (let row = 0; row < rows; row++) {
      const update = product((r) => a[row * rank + r]! * b[col * rank + r]!);
      square += (w[row * cols + col]! + sigma * update) ** 2;
    }
    return square;
  });
});
