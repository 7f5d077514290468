// The canonical order of sums as plain TypeScript: the bits that every kernel, regime and CPU
// variant gives. Weights in blocks: exact integer sums, then floats block by block; float weights:
// 16 strands, then halves; BF16 by pairs, with activations rounded to BF16.
import { dequantizeRow } from "../../src/weights/dequantize.ts";
import { type QuantType, quantTypeInfo, rowBytes } from "../../src/weights/quant-types.ts";
import { type IntegerBlock, integerBlocks } from "./canonical-blocks.ts";

const { fround } = Math;

const double = new Float64Array(1);
const halves = new Uint32Array(double.buffer);

/**
 * a * b + c of three f32 with one rounding. The product of two f32 is exact in f64; the sum is
 * rounded to odd there (the neighbour with an odd last bit, when it is not exact), which f32
 * rounding cannot mistake for a tie (Boldo and Melquiond, "When double rounding is odd").
 */
export function fused(a: number, b: number, c: number): number {
  const product = a * b;
  const sum = product + c;
  // Knuth's two-sum: sum + error is exact.
  const part = sum - product;
  const error = product - (sum - part) + (c - part);
  if (error === 0 || !Number.isFinite(sum)) return fround(sum);
  double[0] = sum;
  if ((halves[0]! & 1) === 0) {
    // Away from zero is one bit up, towards zero one bit down.
    if (error > 0 === sum > 0) halves[0] = halves[0]! + 1;
    else {
      if (halves[0] === 0) halves[1] = halves[1]! - 1;
      halves[0] = halves[0]! - 1;
    }
  }
  return fround(double[0]!);
}

/** One activation row as signed bytes with a scale per group. */
interface QuantizedRow {
  readonly codes: Int32Array;
  readonly d: Float32Array;
}

const smallestAmax = 1e-30;
const roundingShift = 12582912;

export function quantizeActivations(x: Float32Array, group: number): QuantizedRow {
  const codes = new Int32Array(x.length);
  const d = new Float32Array(x.length / group);
  for (let g = 0; g < d.length; g++) {
    let amax = 0;
    for (let i = g * group; i < (g + 1) * group; i++) amax = Math.max(amax, Math.abs(x[i]!));
    d[g] = amax < fround(smallestAmax) ? 0 : amax / 127;
    const inverse = d[g] === 0 ? 0 : fround(1 / d[g]!);
    for (let i = g * group; i < (g + 1) * group; i++) {
      codes[i] = fround(fround(x[i]! * inverse) + roundingShift) - roundingShift;
    }
  }
  return { codes, d };
}

/** One output element: a weight row in blocks · an activation row. */
function blockDot(blocks: readonly IntegerBlock[], row: QuantizedRow): number {
  let sum = 0;
  blocks.forEach(({ d, secondScale, minScale, codes, scales, minima }, b) => {
    const first = b * codes.length;
    // Where there are two scales, each has half of the block.
    const split = secondScale === undefined ? codes.length : codes.length / 2;
    let [integer, second, minSum] = [0, 0, 0];
    for (let i = 0; i < codes.length; i++) {
      const code = row.codes[first + i]!;
      const product = scales[i]! * codes[i]! * code;
      if (i < split) integer += product;
      else second += product;
      minSum += minima[i]! * code;
    }
    let term = fround(fround(integer) * d);
    if (secondScale !== undefined) term = fused(fround(second), secondScale, term);
    if (minScale !== undefined) {
      // 32-blocks add m Σa, K types subtract dmin Σ min a.
      const sign = codes.length === 32 ? 1 : -1;
      term = fused(sign * fround(minSum), minScale, term);
    }
    sum = fused(term, row.d[b]!, sum);
  });
  return sum;
}

const numStrands = 16;

function floatDot(weights: Float32Array, x: Float32Array): number {
  const strands = new Float32Array(numStrands);
  for (let k = 0; k < x.length; k++) {
    const strand = k % numStrands;
    strands[strand] = fused(weights[k]!, x[k]!, strands[strand]!);
  }
  return sumHalving(strands, (value) => value);
}

function sumHalving(strands: Float32Array, keep: (value: number) => number): number {
  for (let width = numStrands / 2; width >= 1; width /= 2) {
    for (let i = 0; i < width; i++) strands[i] = keep(fround(strands[i]! + strands[i + width]!));
  }
  return strands[0]!;
}

/** Activations that share a scale: 256 for super-blocks, 32 for other blocks, 1 for floats. */
export function activationGroup(type: QuantType): 1 | 32 | 256 {
  const { quantBlockSize } = quantTypeInfo(type);
  if (quantBlockSize === 1 || quantBlockSize === 256) return quantBlockSize;
  return 32;
}

/** Below the normal range of f32: zero of the same sign. */
const flush = (value: number) => (Math.abs(value) < 2 ** -126 ? value * 0 : value);

/** The neighbours among BF16 are 2^(e - 7) apart, e being the value's binary exponent. */
function roundToBf16(value: number): number {
  if (flush(value) === 0) return 0;
  let ulp = 2 ** -133;
  while (Math.abs(value) >= 256 * ulp) ulp *= 2;
  const steps = value / ulp;
  const down = Math.floor(steps);
  const rest = steps - down;
  const isUp = rest > 0.5 || (rest === 0.5 && down % 2 !== 0);
  return fround((isUp ? down + 1 : down) * ulp);
}

/** BF16 weights: the strands are sums of pairs, of which the second element comes first. */
function brainDot(weights: Float32Array, x: Float32Array): number {
  const strands = new Float32Array(numStrands);
  for (let first = 0; first < x.length; first += 2) {
    const strand = (first / 2) % numStrands;
    for (const k of [first + 1, first]) {
      if (k >= x.length) continue;
      const w = flush(weights[k]!);
      const sum = strands[strand]!;
      strands[strand] = flush(fused(w, x[k]!, sum));
    }
  }
  return sumHalving(strands, flush);
}

/** y `[numRows, n]` = x `[numRows, k]` · a file's matrix `[n, k]`ᵀ. */
export function canonicalProduct(
  type: QuantType,
  matrix: Uint8Array,
  n: number,
  x: Float32Array,
  k: number,
): Float32Array {
  const numRows = x.length / k;
  const bytes = rowBytes(type, k);
  const y = new Float32Array(numRows * n);
  const input = (row: number) => x.subarray(row * k, (row + 1) * k);
  const group = activationGroup(type);
  const quantized =
    group === 1
      ? []
      : Array.from({ length: numRows }, (_, row) => quantizeActivations(input(row), group));
  const isBrain = type === "bf16";
  const factors = isBrain ? x.map(roundToBf16) : x;
  const dot = isBrain ? brainDot : floatDot;
  for (let column = 0; column < n; column++) {
    const source = matrix.subarray(column * bytes, (column + 1) * bytes);
    if (group === 1) {
      const weights = new Float32Array(k);
      dequantizeRow(type, source, weights);
      for (let row = 0; row < numRows; row++) {
        const own = factors.subarray(row * k, (row + 1) * k);
        y[row * n + column] = dot(weights, own);
      }
      continue;
    }
    const blocks = integerBlocks(type, source);
    for (let row = 0; row < numRows; row++) {
      y[row * n + column] = blockDot(blocks, quantized[row]!);
    }
  }
  return y;
}

/** y + biases, element by element. */
export function addBias(y: Float32Array, biases: Float32Array): Float32Array {
  return y.map((value, i) => value + biases[i % biases.length]!);
}
