// The native quantisers: how close they come, that they keep what is exact already, and that their
// bytes depend on nothing but the row. The comparison with ggml is in test/golden/quants.test.ts.
import { describe, expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import { cpuReport } from "../../src/native/cpu-report.ts";
import { dequantizeRow } from "../../src/weights/dequantize.ts";
import { type QuantType, quantTypeInfo, quantTypes } from "../../src/weights/quant-types.ts";
import {
  canQuantize,
  floatMatrix,
  type QuantizeOptions,
  quantizeMatrix,
  quantizeRuns,
} from "../../src/weights/quantize.ts";
import { Random } from "./random.ts";

const types = [...quantTypes.keys()].filter(canQuantize);
const blockTypes = types.filter((type) => quantTypeInfo(type).quantBlockSize > 1);

function make(type: QuantType, values: Float32Array, cols: number, options: QuantizeOptions = {}) {
  return quantizeMatrix(type, floatMatrix(values, cols), options);
}

function expand(type: QuantType, bytes: Uint8Array): Float32Array {
  const { quantBlockSize, quantBlockBytes } = quantTypeInfo(type);
  const values = new Float32Array((bytes.length / quantBlockBytes) * quantBlockSize);
  dequantizeRow(type, bytes, values);
  return values;
}

function roundTrip(type: QuantType, values: Float32Array, cols = values.length): Float32Array {
  return expand(type, make(type, values, cols));
}

/** Root of the mean squared difference, each column counted by `importance`. */
function distance(a: Float32Array, b: Float32Array, importance?: Float32Array): number {
  let sum = 0;
  let total = 0;
  for (let i = 0; i < a.length; i++) {
    const weight = importance?.[i % importance.length] ?? 1;
    sum += weight * (a[i]! - b[i]!) ** 2;
    total += weight;
  }
  return Math.sqrt(sum / total);
}

const magnitude = (values: Float32Array) => distance(values, new Float32Array(values.length));

/** Root mean square error on normal values, and a little; a quantiser that searches reaches it. */
const relativeErrors: Partial<Record<QuantType, number>> = {
  ...{ f32: 0, f16: 0.00022, bf16: 0.0018 },
  ...{ q8_0: 0.005, q6_k: 0.018, q5_k: 0.036, q5_0: 0.042, q5_1: 0.036 },
  ...{ q4_k: 0.074, q4_0: 0.085, q4_1: 0.073, iq4_nl: 0.077, iq4_xs: 0.077 },
  ...{ nvfp4: 0.085, mxfp4: 0.116, q3_k: 0.152, q2_k: 0.28, tq1_0: 0.46, tq2_0: 0.46 },
  ...{ iq3_s: 0.14, iq3_xxs: 0.19, iq2_s: 0.25, iq2_xs: 0.3, iq2_xxs: 0.345 },
  ...{ iq1_m: 0.44, iq1_s: 0.47 },
};

describe("closeness", () => {
  for (const type of types) {
    test(`${type} on normal values of any size`, () => {
      const random = new Random(`normal ${type}`);
      // NVFP4's scales end at 448 and, without a scale for the tensor, coarsen below 1/64.
      for (const size of type === "nvfp4" ? [1, 100] : [1, 0.02, 300]) {
        const values = random.normals(8 * 1024, size);
        const error = distance(roundTrip(type, values, 1024), values) / size;
        const most = relativeErrors[type];
        if (most === undefined) throw new Error(`no error is stated for ${type}`);
        expect(error).toBeLessThanOrEqual(most);
      }
    });
  }

  for (const type of blockTypes) {
    test(`${type}: what can be stored exactly comes back`, () => {
      const random = new Random(`again ${type}`);
      const values = random.normals(4 * 1024);
      const once = roundTrip(type, values, 1024);
      const off = distance(roundTrip(type, once, 1024), once);
      expect(off).toBeLessThanOrEqual(0.2 * distance(once, values));
    });

    test(`${type}: a column's importance lowers its error`, () => {
      const random = new Random(`importance ${type}`);
      const cols = 512;
      const values = random.normals(16 * cols);
      const importance = Float32Array.from({ length: cols }, () => Math.exp(2 * random.normal()));
      const plain = roundTrip(type, values, cols);
      const weighted = expand(type, make(type, values, cols, { importance }));
      const before = distance(plain, values, importance);
      expect(distance(weighted, values, importance)).toBeLessThan(before);
      // Columns that all count the same, however much, change nothing.
      const alike = make(type, values, cols, { importance: new Float32Array(cols).fill(8) });
      expect(alike).toEqual(make(type, values, cols));
      expect(
        expand(type, make(type, values, cols, { importance: new Float32Array(cols) })),
      ).toEqual(plain);
    });
  }
});

describe("unusual blocks", () => {
  const one = (value: number) => new Float32Array(256).fill(value);

  for (const type of types) {
    test(`${type}: zeros`, () => {
      for (const zero of [0, -0]) {
        expect(roundTrip(type, one(zero)).every((value) => value === 0)).toBe(true);
      }
    });

    test(`${type}: constants`, () => {
      for (const value of [1, -1, 0.3, -0.007]) {
        // The FP4 types have coarse scales, and code books may lack the points with equal weights.
        const most = /fp4|^iq[123]/.test(type) ? 0.34 : 0.004;
        expect(distance(roundTrip(type, one(value)), one(value))).toBeLessThanOrEqual(
          most * Math.abs(value),
        );
      }
    });

    test(`${type}: one outlier`, () => {
      const random = new Random(`outlier ${type}`);
      for (const outlier of [100, -100]) {
        const values = random.normals(256, 0.01);
        values[77] = outlier;
        const back = roundTrip(type, values);
        expect(Math.abs(back[77]! - outlier)).toBeLessThan(15);
        const others = back.filter((_, i) => i !== 77);
        expect(magnitude(others)).toBeLessThan(7); // Few bits: the outlier's steps are wide.
      }
    });

    test(`${type}: one sign only`, () => {
      const random = new Random(`sign ${type}`);
      for (const sign of [1, -1]) {
        const values = random.normals(1024).map((value) => sign * (Math.abs(value) + 0.1));
        const back = roundTrip(type, values);
        expect(distance(back, values)).toBeLessThan(0.6 * magnitude(values));
        expect(back.every((value) => value * sign >= -2)).toBe(true);
      }
    });

    test(`${type}: tiny values become finite ones that are as small`, () => {
      const random = new Random(`tiny ${type}`);
      for (const size of [1e-6, 1e-8, 1e-20, 1e-38, 1e-44]) {
        const values = random.normals(256, size);
        const back = roundTrip(type, values);
        // Half the smallest E4M3 scale times the smallest FP4, or a small part of an F16 step.
        const step = type === "nvfp4" ? 2 ** -11 : 2 ** -24;
        for (let i = 0; i < 256; i++) {
          expect(Math.abs(back[i]! - values[i]!)).toBeLessThanOrEqual(Math.max(step, 4 * size));
        }
      }
    });
  }

  test("mxfp4 covers the whole range of f32", () => {
    for (const value of [2 ** 127 * 1.5, -(2 ** 126), 2 ** -126, 2 ** -127]) {
      const values = one(value);
      expect(roundTrip("mxfp4", values)).toEqual(values);
    }
  });
});

describe("refusals", () => {
  const refusal = (run: () => unknown): TinferError => {
    try {
      run();
    } catch (error) {
      if (error instanceof TinferError) return error;
      throw error;
    }
    throw new Error("nothing was refused");
  };

  for (const type of types) {
    test(`${type}: NaN and infinity, by row and column`, () => {
      for (const [value, word] of [
        [Number.NaN, "NaN"],
        [Infinity, "infinite"],
        [-Infinity, "infinite"],
      ] as const) {
        const values = new Float32Array(300 * 512).fill(0.5);
        values[211 * 512 + 300] = value;
        values[290 * 512 + 3] = value;
        for (const numThreads of [1, 3]) {
          const options = { numThreads, what: "blk.0.attn_q", firstRow: 1000 };
          const error = refusal(() => make(type, values, 512, options));
          expect(error.message).toContain("blk.0.attn_q");
          expect(error.message).toContain(`row 1211, column 300 is ${word}`);
        }
      }
    });
  }

  test("values that the type's scales do not reach", () => {
    const large: Partial<Record<QuantType, number>> = { bf16: 3.4e38, nvfp4: 3000 };
    for (const type of types) {
      if (type === "f32" || type === "mxfp4") continue;
      const values = new Float32Array(256);
      values[9] = -(large[type] ?? 65600);
      expect(refusal(() => make(type, values, 256)).message).toContain("row 0, column 9");
    }
    expect(roundTrip("f16", new Float32Array(8).fill(65519))[0]).toBe(65504);
  });

  test("importance that is none", () => {
    for (const bad of [-1, Number.NaN, Infinity]) {
      const importance = new Float32Array(256).fill(1);
      importance[200] = bad;
      const error = refusal(() => make("q4_k", new Float32Array(256), 256, { importance }));
      expect(error.message).toContain("column 200");
    }
  });

  test("rows that are no whole number of blocks, and types that are not made", () => {
    expect(refusal(() => make("q4_k", new Float32Array(96), 96)).code).toBe("unsupported");
    expect(refusal(() => make("q8_k", new Float32Array(256), 256)).code).toBe("unsupported");
    expect(() => make("q8_0", new Float32Array(33), 32)).toThrow("132 bytes");
  });
});

describe("bytes depend on the row alone", () => {
  const variants = cpuReport().variants;

  for (const type of types) {
    const cols = 512;
    const rows = 301;
    const random = new Random(`bytes ${type}`);
    const values = random.normals(rows * cols, 0.3);
    for (let i = 0; i < values.length; i += 97) values[i] = values[i]! * random.of([0, 1, 9, 1e-3]);
    const importance = Float32Array.from({ length: cols }, random.uniform);

    test(`${type}: any number of threads, any runs, every CPU variant`, () => {
      const wanted = make(type, values, cols, { importance });
      for (const numThreads of [2, 3]) {
        expect(make(type, values, cols, { importance, numThreads })).toEqual(wanted);
      }
      for (let variant = 0; variant < variants.length; variant++) {
        const actual = make(type, values, cols, { importance, variant });
        expect(Buffer.compare(actual, wanted), `variant ${variants[variant]}`).toBe(0);
      }
      const last = values.subarray((rows - 1) * cols);
      const rowBytes = wanted.length / rows;
      expect(make(type, last, cols, { importance })).toEqual(wanted.slice(-rowBytes));
    });

    test(`${type}: from f16 and bf16 as from f32`, () => {
      for (const source of ["f16", "bf16"] as const) {
        const content = make(source, values, cols);
        const same = expand(source, content);
        const actual = quantizeMatrix(type, { type: source, content, cols });
        expect(Buffer.compare(actual, make(type, same, cols))).toBe(0);
      }
    });
  }

  test("runs of rows put together are the whole", () => {
    const [rows, cols] = [5000, 1024];
    const values = new Random("runs").normals(1024);
    const matrix = floatMatrix(new Float32Array(rows * cols).fill(0.25), cols);
    new Float32Array(matrix.content.buffer).set(values, (rows - 1) * cols);
    const source = {
      ...{ rows, cols },
      read: (row: number, count: number) => {
        const content = matrix.content.subarray(row * cols * 4, (row + count) * cols * 4);
        return { ...matrix, content };
      },
    };
    const parts: Uint8Array[] = [];
    for (const part of quantizeRuns("q8_0", source)) parts.push(part.slice());
    expect(parts.length).toBeGreaterThan(1);
    expect(Buffer.compare(Buffer.concat(parts), quantizeMatrix("q8_0", matrix))).toBe(0);
    new Float32Array(matrix.content.buffer)[rows * cols - 1] = Number.NaN;
    expect(() => [...quantizeRuns("q8_0", source)]).toThrow(`row ${rows - 1}, column ${cols - 1}`);
  });
});
