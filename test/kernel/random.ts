// Random numbers for kernel tests that depend on one seed, and quant blocks made of them. The
// seed stands in every failure; TINFER_TEST_SEED repeats or changes a run.

import { type Float8Type, float8Types, float8Values, isFloat8 } from "../../src/weights/float8.ts";
import { type QuantType, quantTypeInfo, rowBytes } from "../../src/weights/quant-types.ts";
import { activationGroup } from "./canonical.ts";

/** Seed of this run. */
export const testSeed = Number(process.env["TINFER_TEST_SEED"] ?? 1);

/** Where a type's f16 scales and minima lie in its quant block, and their usual size. */
const scaleFields: Partial<Record<QuantType, readonly (readonly [number, number])[]>> = {
  q4_0: [[0, 0.02]],
  q4_1: [
    [0, 0.02],
    [2, 0.15],
  ],
  q5_0: [[0, 0.01]],
  q5_1: [
    [0, 0.01],
    [2, 0.15],
  ],
  q8_0: [[0, 0.001]],
  q2_k: [
    [80, 0.01],
    [82, 0.01],
  ],
  q3_k: [[108, 0.001]],
  q4_k: [
    [0, 0.0003],
    [2, 0.002],
  ],
  q5_k: [
    [0, 0.0002],
    [2, 0.002],
  ],
  q6_k: [[208, 0.00004]],
  iq4_nl: [[0, 0.001]],
  iq4_xs: [[0, 0.00005]],
  tq1_0: [[52, 0.1]],
  tq2_0: [[64, 0.1]],
  mxfp4: [],
  nvfp4: [],
  q1_0: [[0, 0.1]],
  q2_0: [[0, 0.1]],
  iq1_s: [[0, 0.003]],
  iq1_m: [],
  iq2_xxs: [[0, 0.001]],
  iq2_xs: [[0, 0.001]],
  iq2_s: [[0, 0.001]],
  iq3_xxs: [[0, 0.0004]],
  iq3_s: [[0, 0.001]],
};

/** E4M3's largest. */
const largestWeight = 448;

/** Every weight type that has kernels, floats first. */
export const floatTypes = [
  ...(["f32", "f16", "bf16"] as const),
  ...float8Types,
] as const satisfies readonly QuantType[];
export const blockTypes = Object.keys(scaleFields) as QuantType[];
export const weightTypes: readonly QuantType[] = [...floatTypes, ...blockTypes];

/** Choices that depend on the run's seed and `label` alone. */
export class Random {
  #state: number;

  constructor(label: string, seed = testSeed) {
    this.#state = Number(BigInt(Bun.hash(`${seed} ${label}`)) & 0xffffffffn) || 1;
  }

  /** 32 random bits: Marsaglia's xorshift32 (Journal of Statistical Software 8, 14). */
  word(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state >>> 0;
    return this.#state;
  }
  /** In [0, 1). */
  uniform = (): number => this.word() / 2 ** 32;
  below = (n: number): number => Math.floor(this.uniform() * n);
  of = <T>(list: readonly T[]): T => list[this.below(list.length)]!;
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }
  normals(count: number, scale = 1): Float32Array {
    return Float32Array.from({ length: count }, () => this.normal() * scale);
  }
  /** 0 … n - 1 in random order. */
  shuffled(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const other = this.below(i + 1);
      [order[i], order[other]] = [order[other]!, order[i]!];
    }
    return order;
  }

  /** Activation rows `[rows, width]`; some are zero, tiny or huge, some have an outlier. */
  activations(rows: number, width: number): Float32Array {
    const values = this.normals(rows * width);
    for (let row = 0; row < rows; row++) {
      const factor = this.of([1, 1, 1, 1, 0.01, 30, 1e12, 1e-20, 1e-31, 0]);
      const part = values.subarray(row * width, (row + 1) * width);
      for (let i = 0; i < width; i++) part[i] = part[i]! * factor;
      if (this.uniform() < 0.3) part[this.below(width)] = 100 * factor;
      // The largest code everywhere, for integer sums of extreme weights.
      if (row % 8 === 1) part.fill(this.of([-1, 1]) * factor);
    }
    return values;
  }

  /** A `[rows, cols]` matrix of weights as it lies in a file. */
  weights(type: QuantType, rows: number, cols: number): Uint8Array {
    const bytes = new Uint8Array(rows * rowBytes(type, cols));
    const view = new DataView(bytes.buffer);
    const fields = scaleFields[type];
    if (fields === undefined) {
      this.#fillFloats(type, view);
      return bytes;
    }
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.word() >>> 11;
    const { quantBlockBytes } = quantTypeInfo(type);
    for (let block = 0; block < bytes.length; block += quantBlockBytes) {
      for (const [offset, usual] of fields) {
        const scale = this.of([1, 1, 1, -1, 0.1, 0, 1e-3]) * (0.5 + this.uniform()) * usual;
        view.setFloat16(block + offset, scale, true);
      }
      // E8M0: mostly about 1 / 64, and both ends, where powers of two are subnormal or too large.
      if (type === "mxfp4") bytes[block] = this.of([118, 119, 120, 121, 121, 122, 0, 1, 2, 90]);
      if (type === "nvfp4") this.#setE4m3(bytes, block);
      if (type === "iq1_m") this.#setScattered(view, block, 0.003);
      // Extreme codes everywhere: what saturates, saturates here.
      if (this.uniform() < 0.05) this.#fillBlock(bytes, block, quantBlockBytes, fields);
    }
    return bytes;
  }

  /** NVFP4: four unsigned E4M3 scales, some zero, subnormal, largest, or the NaN. */
  #setE4m3(bytes: Uint8Array, block: number): void {
    for (let i = 0; i < 4; i++) {
      bytes[block + i] = this.of([10, 11, 12, 14, 18, 20, 22, 0, 1, 7, 0x7f, 0xff]);
    }
  }

  /** IQ1_M: the upper nibbles of the last four words are one f16. */
  #setScattered(view: DataView, block: number, usual: number): void {
    const scale = new DataView(new ArrayBuffer(2));
    scale.setFloat16(0, this.of([1, 1, 1, -1, 0.1, 0, 1e-3]) * (0.5 + this.uniform()) * usual);
    for (let i = 0; i < 4; i++) {
      const word = view.getUint16(block + 48 + 2 * i, true) & 0xfff;
      view.setUint16(
        block + 48 + 2 * i,
        word | (((scale.getUint16(0) >> (4 * i)) & 15) << 12),
        true,
      );
    }
  }

  #fillBlock(
    bytes: Uint8Array,
    block: number,
    length: number,
    fields: readonly (readonly [number, number])[],
  ): void {
    const value = this.of([0x00, 0xff, 0x80, 0x7f, 0x88, 0xf0]);
    // Types without such fields have E8M0 in the first byte, or a scattered f16 in the last ones.
    const isScale = (i: number) =>
      fields.length === 0 ? i === 0 || i >= 48 : fields.some(([at]) => i === at || i === at + 1);
    for (let i = 0; i < length; i++) if (!isScale(i)) bytes[block + i] = value;
  }

  /** Any code but those of E5M2 whose sums of products leave f32. */
  #moderateCode(type: Float8Type): number {
    for (;;) {
      const code = this.word() >>> 24;
      if (Math.abs(float8Values[type][code]!) <= largestWeight) return code;
    }
  }

  #fillFloats(type: QuantType, view: DataView): void {
    const { quantBlockBytes: size } = quantTypeInfo(type);
    const word = new DataView(new ArrayBuffer(4));
    for (let at = 0; at < view.byteLength; at += size) {
      if (isFloat8(type)) {
        view.setUint8(at, this.#moderateCode(type));
        continue;
      }
      const value = this.normal() * this.of([0.1, 0.1, 0.1, 1, 1e-6, 0]);
      if (type === "f32") view.setFloat32(at, value, true);
      else if (type === "f16") view.setFloat16(at, value, true);
      else {
        word.setFloat32(0, value, true);
        view.setUint16(at, word.getUint16(2, true), true);
      }
    }
  }
}

/** Columns of products by activation group: with remainders of every kernel's steps. */
const colsOfGroup: Readonly<Record<number, number>> = { 1: 117, 32: 544, 256: 768 };

/** Whole quant blocks, which are longer than a group in some types. */
export function colsOfType(type: QuantType): number {
  const { quantBlockSize } = quantTypeInfo(type);
  return Math.ceil(colsOfGroup[activationGroup(type)]! / quantBlockSize) * quantBlockSize;
}
