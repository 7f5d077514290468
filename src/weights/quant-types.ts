// The table of weight types: number in GGUF files, quant block length and bytes.
// One row per type; what can be computed with is decided by the kernels, not here.
import { assert } from "../core/errors.ts";
import { isFloat8 } from "./float8.ts";

export interface QuantTypeInfo {
  readonly name: QuantType;
  /** The number that stands for the type in a GGUF file; ours for the types that none has. */
  readonly ggmlType: number;
  /** Elements that share a scale; a row holds a whole number of quant blocks. */
  readonly quantBlockSize: number;
  readonly quantBlockBytes: number;
}

interface Row {
  readonly ggmlType: number;
  readonly quantBlockSize: number;
  readonly quantBlockBytes: number;
}

function row(ggmlType: number, quantBlockSize: number, quantBlockBytes: number): Row {
  return { ggmlType, quantBlockSize, quantBlockBytes };
}

// Byte counts are sums of the fields of one quant block, e.g. q4_k: two f16 (4), 8 scales and
// 8 minima of 6 bits (12), 256 nibbles (128) = 144.
const rows = {
  f32: row(0, 1, 4),
  f16: row(1, 1, 2),
  q4_0: row(2, 32, 18),
  q4_1: row(3, 32, 20),
  q5_0: row(6, 32, 22),
  q5_1: row(7, 32, 24),
  q8_0: row(8, 32, 34),
  q8_1: row(9, 32, 36),
  q2_k: row(10, 256, 84),
  q3_k: row(11, 256, 110),
  q4_k: row(12, 256, 144),
  q5_k: row(13, 256, 176),
  q6_k: row(14, 256, 210),
  q8_k: row(15, 256, 292),
  iq2_xxs: row(16, 256, 66),
  iq2_xs: row(17, 256, 74),
  iq3_xxs: row(18, 256, 98),
  iq1_s: row(19, 256, 50),
  iq4_nl: row(20, 32, 18),
  iq3_s: row(21, 256, 110),
  iq2_s: row(22, 256, 82),
  iq4_xs: row(23, 256, 136),
  i8: row(24, 1, 1),
  i16: row(25, 1, 2),
  i32: row(26, 1, 4),
  i64: row(27, 1, 8),
  f64: row(28, 1, 8),
  iq1_m: row(29, 256, 56),
  bf16: row(30, 1, 2),
  tq1_0: row(34, 256, 54),
  tq2_0: row(35, 256, 66),
  mxfp4: row(39, 32, 17),
  nvfp4: row(40, 64, 36),
  q1_0: row(41, 128, 18),
  q2_0: row(42, 64, 18),
  // Of safetensors (kernels/quant/quant.zig).
  f8_e4m3: row(0xf8e4, 1, 1),
  f8_e5m2: row(0xf8e5, 1, 1),
} as const;

export type QuantType = keyof typeof rows;

export const quantTypes: ReadonlyMap<QuantType, QuantTypeInfo> = new Map(
  Object.entries(rows).map(([name, fields]) => {
    const type = name as QuantType;
    return [type, { name: type, ...fields }];
  }),
);

const byNumber: ReadonlyMap<number, QuantTypeInfo> = new Map(
  [...quantTypes.values()].map((type) => [type.ggmlType, type]),
);

/** Numbers that older files used for types which GGUF has since removed. */
const removedTypes: ReadonlyMap<number, string> = new Map([
  [4, "q4_2"],
  [5, "q4_3"],
  [31, "q4_0_4_4"],
  [32, "q4_0_4_8"],
  [33, "q4_0_8_8"],
  [36, "iq4_nl_4_4"],
  [37, "iq4_nl_4_8"],
  [38, "iq4_nl_8_8"],
]);

export function quantTypeOf(ggmlType: number): QuantTypeInfo | undefined {
  return byNumber.get(ggmlType);
}

/** The name of a type that GGUF once had and no longer has, or undefined. */
export function removedTypeName(ggmlType: number): string | undefined {
  return removedTypes.get(ggmlType);
}

/** Whether GGUF files hold the type. */
export function isGgufType({ name }: QuantTypeInfo): boolean {
  return !isFloat8(name);
}

export function isQuantType(name: string): name is QuantType {
  return Object.hasOwn(rows, name);
}

export function quantTypeInfo(type: QuantType): QuantTypeInfo {
  return quantTypes.get(type)!;
}

/** Bytes of one row of `cols` elements; `cols` is a multiple of the quant block. */
export function rowBytes(type: QuantType, cols: number): number {
  const { quantBlockSize, quantBlockBytes } = rows[type];
  assert(
    Number.isSafeInteger(cols) && cols >= 0 && cols % quantBlockSize === 0,
    `row of ${cols} elements is not a multiple of ${quantBlockSize} (${type})`,
  );
  return (cols / quantBlockSize) * quantBlockBytes;
}

/** Bytes of a tensor; `shape` is outermost first, so its last entry is the row. */
export function tensorBytes(type: QuantType, shape: readonly number[]): number {
  let bytes = rowBytes(type, shape.at(-1) ?? 1);
  for (let index = 0; index < shape.length - 1; index++) bytes *= shape[index]!;
  assert(Number.isSafeInteger(bytes), `tensor [${shape.join(", ")}] of ${type} passes 2^53 bytes`);
  return bytes;
}
