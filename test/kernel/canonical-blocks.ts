// Quant blocks as integers: what the canonical order sums exactly. Written from the formats'
// descriptions, apart from the dequantisers and the kernels, so that it can contradict both.
import { type QuantType, quantTypeInfo } from "../../src/weights/quant-types.ts";

/** One quant block: weight i = d * scale[i] * q[i] - dmin * min[i] (dmin 0 where there is none). */
export interface IntegerBlock {
  readonly d: number;
  /** What multiplies the minima: +m of 32-blocks, or dmin of K types, which is subtracted. */
  readonly minScale: number | undefined;
  /** Integer of each weight, its offset already taken off. */
  readonly codes: Int32Array;
  /** Integer scale of each weight; all 1 in 32-blocks. */
  readonly scales: Int32Array;
  readonly minima: Int32Array;
}

interface Reader {
  readonly byte: (offset: number) => number;
  readonly signed: (offset: number) => number;
  readonly half: (offset: number) => number;
}

type CodeOf = (at: Reader, i: number) => number;
type Unpack = (at: Reader) => IntegerBlock;

const one = () => 1;
const bit = (at: Reader, offset: number, index: number) =>
  (at.byte(offset + (index >> 3)) >> (index & 7)) & 1;
/** Nibble i of 32: the first 16 are the low halves of 16 bytes. */
const nibble32 = (at: Reader, offset: number, i: number) =>
  i < 16 ? at.byte(offset + i) & 15 : at.byte(offset + i - 16) >> 4;

function block(
  length: number,
  at: Reader,
  d: number,
  minScale: number | undefined,
  fields: { code: CodeOf; scale?: CodeOf; min?: CodeOf },
): IntegerBlock {
  const fill = (of: CodeOf) => Int32Array.from({ length }, (_, i) => of(at, i));
  const { code, scale = one, min = one } = fields;
  return { d, minScale, codes: fill(code), scales: fill(scale), minima: fill(min) };
}

/** Two-bit code i of 256: per 128 weights 32 bytes, whose bit pairs are 32 weights apart. */
const pair256 = (at: Reader, offset: number, i: number) =>
  (at.byte(offset + (i >= 128 ? 32 : 0) + (i % 32)) >> (2 * Math.floor((i % 128) / 32))) & 3;
/** Nibble i of 256: per 64 weights 32 bytes, low halves first. */
const nibble256 = (at: Reader, offset: number, i: number) => {
  const byte = at.byte(offset + 32 * Math.floor(i / 64) + (i % 32));
  return i % 64 < 32 ? byte % 16 : byte >> 4;
};

/** Scale (`half` 0) or minimum (1) `j` of 8 six-bit ones in 12 bytes. */
function sixBits(at: Reader, offset: number, j: number, half: 0 | 1): number {
  if (j < 4) return at.byte(offset + 4 * half + j) % 64;
  const shared = at.byte(offset + 8 + (j - 4));
  const low = half === 0 ? shared % 16 : shared >> 4;
  return low + 16 * (at.byte(offset + 4 * half + (j - 4)) >> 6);
}

const unpackers: Partial<Record<QuantType, Unpack>> = {
  q4_0: (at) => block(32, at, at.half(0), undefined, { code: (_, i) => nibble32(at, 2, i) - 8 }),
  q4_1: (at) => block(32, at, at.half(0), at.half(2), { code: (_, i) => nibble32(at, 4, i) }),
  q5_0: (at) =>
    block(32, at, at.half(0), undefined, {
      code: (_, i) => nibble32(at, 6, i) + 16 * bit(at, 2, i) - 16,
    }),
  q5_1: (at) =>
    block(32, at, at.half(0), at.half(2), {
      code: (_, i) => nibble32(at, 8, i) + 16 * bit(at, 4, i),
    }),
  q8_0: (at) => block(32, at, at.half(0), undefined, { code: (_, i) => at.signed(2 + i) }),
  q2_k: (at) =>
    block(256, at, at.half(80), at.half(82), {
      code: (_, i) => pair256(at, 16, i),
      scale: (_, i) => at.byte(i >> 4) % 16,
      min: (_, i) => at.byte(i >> 4) >> 4,
    }),
  q3_k: (at) =>
    block(256, at, at.half(108), undefined, {
      // Third bit: bit i / 32 of byte i mod 32.
      code: (_, i) => pair256(at, 32, i) + 4 * ((at.byte(i % 32) >> (i >> 5)) & 1) - 4,
      scale: (_, i) => {
        const j = i >> 4;
        const low = j < 8 ? at.byte(96 + j) % 16 : at.byte(96 + j - 8) >> 4;
        return low + 16 * ((at.byte(104 + (j % 4)) >> (2 * (j >> 2))) & 3) - 32;
      },
    }),
  q4_k: (at) =>
    block(256, at, at.half(0), at.half(2), {
      code: (_, i) => nibble256(at, 16, i),
      scale: (_, i) => sixBits(at, 4, i >> 5, 0),
      min: (_, i) => sixBits(at, 4, i >> 5, 1),
    }),
  q5_k: (at) =>
    block(256, at, at.half(0), at.half(2), {
      code: (_, i) => nibble256(at, 48, i) + 16 * ((at.byte(16 + (i % 32)) >> (i >> 5)) & 1),
      scale: (_, i) => sixBits(at, 4, i >> 5, 0),
      min: (_, i) => sixBits(at, 4, i >> 5, 1),
    }),
  q6_k: (at) =>
    block(256, at, at.half(208), undefined, {
      code: (_, i) => {
        const [half, within] = [i >> 7, i % 128];
        const byte = at.byte(64 * half + (within % 64));
        const high = at.byte(128 + 32 * half + (within % 32)) >> (2 * (within >> 5));
        return (within < 64 ? byte % 16 : byte >> 4) + 16 * (high & 3) - 32;
      },
      scale: (_, i) => at.signed(192 + (i >> 4)),
    }),
};

/** The quant blocks of one weight row. */
export function integerBlocks(type: QuantType, row: Uint8Array): IntegerBlock[] {
  const unpack = unpackers[type];
  if (unpack === undefined) throw new Error(`no integer form of ${type}`);
  const { quantBlockBytes } = quantTypeInfo(type);
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
  return Array.from({ length: row.length / quantBlockBytes }, (_, index) => {
    const start = index * quantBlockBytes;
    return unpack({
      byte: (offset) => view.getUint8(start + offset),
      signed: (offset) => view.getInt8(start + offset),
      half: (offset) => view.getFloat16(start + offset, true),
    });
  });
}
