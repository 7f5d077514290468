// The canonical bits of attention as plain TypeScript: one query row of one head over the keys and
// values that it sees, in the order that every regime and CPU variant keeps.
import type { KvType } from "../../src/plan/ops.ts";
import { fused } from "./canonical.ts";

const { fround, abs } = Math;
const chunkLen = 512;
const stepLen = 32;
const groupLen = 32;
const numStrands = 16;
const lowest = fround(-1e30);

const word = new Float32Array(1);
const wordBits = new Uint32Array(word.buffer);

/** To nearest even; subnormals to zero. */
export function roundToBfloat(value: number): number {
  word[0] = value;
  const bits = wordBits[0]!;
  if ((bits & 0x7f800000) === 0) return 0 * value;
  wordBits[0] = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
  return word[0];
}

/** A stored key or value: what enters the products; where it is quantised, a scale per 32 dims. */
export interface StoredRow {
  readonly values: Float32Array;
  readonly scales: Float32Array | undefined;
}

export function storeRow(type: KvType, row: Float32Array): StoredRow {
  if (type === "f32") return { values: row, scales: undefined };
  if (type === "f16") return { values: row.map(Math.f16round), scales: undefined };
  if (type === "bf16") return { values: row.map(roundToBfloat), scales: undefined };
  const values = new Float32Array(row.length);
  const scales = new Float32Array(Math.ceil(row.length / groupLen));
  for (let g = 0; g < scales.length; g++) {
    const group = row.subarray(g * groupLen, (g + 1) * groupLen);
    const peak = group.reduce((most, value) => (abs(value) > abs(most) ? value : most), 0);
    const ideal = type === "q8_0" ? fround(abs(peak) / 127) : fround(peak / -8);
    const scale = Math.f16round(ideal);
    scales[g] = scale;
    const [low, high] = type === "q8_0" ? [-127, 127] : [-8, 7];
    group.forEach((value, i) => {
      if (scale === 0) return;
      const ratio = Math.min(high, Math.max(low, fround(value / scale)));
      values[g * groupLen + i] = Math.floor(fround(ratio + 0.5));
    });
  }
  return { values, scales };
}

const isRounded = (type: KvType) => type === "bf16" || type === "q8_0" || type === "q4_0";

function horner(x: number, coefficients: readonly number[]): number {
  return coefficients.reduce((sum, next) => fused(sum, x, fround(next)));
}

const exp2Coefficients = [
  0.0013264722211301452, 0.009671512992994624, 0.055507337598216216, 0.24022242077671788,
  0.6931469775876407, 1,
].map(fround);

/** 2^t for t <= 0. */
function exp2OfNegative(t: number): number {
  if (t < -125) return 0;
  const whole = fround(fround(t + 12582912) - 12582912);
  return fround(horner(fround(t - whole), exp2Coefficients) * 2 ** whole);
}

const tanhCoefficients = [
  -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1,
].map(fround);

function tanh(x: number): number {
  const z = fround(x * x);
  if (abs(x) < 0.625) {
    return fused(fround(x * z), horner(z, tanhCoefficients), x);
  }
  const e = exp2OfNegative(fround(abs(x) * fround(-2 * Math.LOG2E)));
  return Math.sign(x) * fround(fround(1 - e) / fround(1 + e));
}

/** What one query row sees of its sequence: positions from `first` on. */
export interface AttentionRow {
  readonly query: Float32Array;
  readonly first: number;
  /** By position; the last is the query's own. Those before `first` are not looked at. */
  readonly keys: readonly StoredRow[];
  readonly values: readonly StoredRow[];
  readonly types: readonly [k: KvType, v: KvType];
  readonly scale: number;
  readonly softcap: number;
  readonly sink: number | undefined;
}

interface Partial {
  maximum: number;
  sum: number;
  readonly accumulator: Float32Array;
}

function scoreOf(row: AttentionRow, query: Float32Array, key: StoredRow): number {
  let score = 0;
  let part = 0;
  key.values.forEach((value, d) => {
    part = fused(value, query[d]!, part);
    if (key.scales === undefined || ((d + 1) % groupLen !== 0 && d + 1 < query.length)) return;
    score = fused(part, key.scales[Math.floor(d / groupLen)]!, score);
    part = 0;
  });
  if (key.scales === undefined) score = part;
  const limit = fround(fround(row.softcap) * fround(Math.LOG2E));
  return row.softcap === 0 ? score : fround(tanh(score) * limit);
}

function attendStep(row: AttentionRow, state: Partial, strands: Float32Array, step: Step): void {
  const { scores, start } = step;
  const maximum = scores.reduce((most, score) => Math.max(most, score), state.maximum);
  const factor = exp2OfNegative(fround(state.maximum - maximum));
  state.maximum = maximum;
  const p = scores.map((score) => exp2OfNegative(fround(score - maximum)));
  for (let s = 0; s < numStrands; s++) {
    const before = fround(strands[s]! * factor);
    strands[s] = fround(fround(before + p[s]!) + p[s + numStrands]!);
  }
  const { accumulator } = state;
  accumulator.forEach((value, d) => {
    let sum = fround(value * factor);
    p.forEach((probability, i) => {
      const position = start + i;
      if (position < row.first || position >= row.values.length) return;
      const { values, scales } = row.values[position]!;
      let weight = probability;
      if (scales !== undefined) weight = fround(weight * scales[Math.floor(d / groupLen)]!);
      if (isRounded(row.types[1])) weight = roundToBfloat(weight);
      sum = fused(values[d]!, weight, sum);
    });
    accumulator[d] = sum;
  });
}

interface Step {
  readonly scores: Float32Array;
  readonly start: number;
}

function attendChunk(row: AttentionRow, query: Float32Array, chunk: number): Partial {
  const accumulator = new Float32Array(row.values[row.first]!.values.length);
  const state: Partial = { maximum: lowest, sum: 0, accumulator };
  const strands = new Float32Array(numStrands);
  const end = Math.min((chunk + 1) * chunkLen, row.keys.length);
  for (let start = chunk * chunkLen; start < end; start += stepLen) {
    if (start + stepLen <= row.first) continue;
    const scores = new Float32Array(stepLen).map((_, i) => {
      const position = start + i;
      if (position < row.first || position >= row.keys.length) return Number.NEGATIVE_INFINITY;
      return scoreOf(row, query, row.keys[position]!);
    });
    attendStep(row, state, strands, { scores, start });
  }
  for (let width = numStrands / 2; width >= 1; width /= 2) {
    for (let i = 0; i < width; i++) strands[i] = strands[i]! + strands[i + width]!;
  }
  state.sum = strands[0]!;
  return state;
}

/** The row's output `[valueDim]`. */
export function canonicalAttention(row: AttentionRow): Float32Array {
  const factor = row.softcap === 0 ? Math.LOG2E : 1 / fround(row.softcap);
  const scale = fround(fround(row.scale) * factor);
  const scaled = row.query.map((value) => value * scale);
  const query = isRounded(row.types[0]) ? scaled.map(roundToBfloat) : scaled;
  let maximum = row.sink === undefined ? lowest : fround(row.sink * fround(Math.LOG2E));
  let sum = row.sink === undefined ? 0 : 1;
  let output: Float32Array | undefined;
  const lastChunk = Math.floor((row.keys.length - 1) / chunkLen);
  for (let chunk = Math.floor(row.first / chunkLen); chunk <= lastChunk; chunk++) {
    const part = attendChunk(row, query, chunk);
    const both = Math.max(maximum, part.maximum);
    const old = exp2OfNegative(fround(maximum - both));
    const fresh = exp2OfNegative(fround(part.maximum - both));
    maximum = both;
    sum = fused(sum, old, fround(part.sum * fresh));
    const before = output;
    output = part.accumulator.map((value, d) => {
      const term = fround(value * fresh);
      return before === undefined ? term : fused(before[d]!, old, term);
    });
  }
  return output!.map((value) => value / sum);
}
