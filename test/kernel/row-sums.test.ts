// Squares of rows and their products with vectors, natively, against sums in float64: every weight
// type on every CPU variant, with the same bits on one thread and on three.
import { expect, test } from "bun:test";
import { sumRowsNative } from "../../src/native/row-sums.ts";
import { dequantizeRow } from "../../src/weights/dequantize.ts";
import { quantTypeInfo, rowBytes } from "../../src/weights/quant-types.ts";
import { cpuVariants } from "./executor.ts";
import { colsOfType, Random, weightTypes } from "./random.ts";

for (const type of weightTypes) {
  test(type, () => {
    const random = new Random(`row sums ${type}`);
    const widths = type === "f32" || type === "f16" ? [1, 37, 1100] : [colsOfType(type)];
    for (const cols of widths) {
      for (const numVectors of [0, 3]) {
        const rows = 131;
        const source = random.weights(type, rows, cols);
        const vectors = random.normals(numVectors * cols);
        const { ggmlType: typeId } = quantTypeInfo(type);
        const bytes = rowBytes(type, cols);
        const w = Float64Array.from({ length: rows * cols });
        const row = new Float32Array(cols);
        for (let i = 0; i < rows; i++) {
          dequantizeRow(type, source.subarray(i * bytes, (i + 1) * bytes), row);
          w.set(row, i * cols);
        }
        let first: Float64Array | undefined;
        for (const [variant] of cpuVariants.entries()) {
          for (const numThreads of [1, 3]) {
            const job = { source, typeId, rows, cols, vectors, numThreads, variant };
            const found = sumRowsNative(job, type);
            first ??= found;
            expect(found).toEqual(first);
          }
        }
        for (let i = 0; i < first!.length; i++) {
          const [own, which] = [Math.floor(i / (1 + numVectors)), i % (1 + numVectors)];
          const x = w.subarray(own * cols, (own + 1) * cols);
          let [sum, size] = [0, 0];
          x.forEach((value, k) => {
            const term = value * (which === 0 ? value : vectors[(which - 1) * cols + k]!);
            sum += term;
            size += Math.abs(term);
          });
          expect(Math.abs(first![i]! - sum)).toBeLessThanOrEqual(1e-6 * size);
        }
      }
    }
  });
}
