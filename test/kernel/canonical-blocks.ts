// Quant blocks as integers: what the canonical order sums exactly. Written from the formats'
// descriptions, apart from the dequantisers and the kernels, so that it can contradict both.
import { type CodeBookName, codeBook } from "../../src/weights/codebooks.ts";
import { type QuantType, quantTypeInfo } from "../../src/weights/quant-types.ts";

/** One quant block: weight i = d * scale[i] * q[i] - dmin * min[i] (dmin 0 where there is none). */
export interface IntegerBlock {
  readonly d: number;
  /** NVFP4: d of weights 16 … 31. */
  readonly secondScale?: number;
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
  readonly word: (offset: number) => number;
  readonly signed: (offset: number) => number;
  readonly half: (offset: number) => number;
}

type CodeOf = (at: Reader, i: number) => number;
/** One block, or the 32s of a larger one. */
type Unpack = (at: Reader) => IntegerBlock | IntegerBlock[];

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

const iq4Levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/** Twice an E2M1 float, as an integer: 1 is subnormal, the others have a hidden bit. */
function e2m1(code: number): number {
  const [exponent, mantissa] = [(code >> 1) & 3, code & 1];
  const magnitude = exponent === 0 ? mantissa : (2 + mantissa) << (exponent - 1);
  return code < 8 ? magnitude : -magnitude;
}

/** Half of an unsigned E4M3 float (bias 7), whose NaN counts as zero. */
function halfUe4m3(code: number): number {
  const [exponent, mantissa] = [(code >> 3) % 16, code % 8];
  if (code === 0x7f) return 0;
  return exponent === 0 ? mantissa * 2 ** -10 : (8 + mantissa) * 2 ** (exponent - 11);
}

const thirtyTwos = (count: number, make: (index: number) => IntegerBlock) =>
  Array.from({ length: count }, (_, index) => make(index));

/** Base-3 digit of weight i of TQ1_0: a byte is the fraction 0.t0t1t2t3t4 in 256ths. */
function ternary(at: Reader, i: number): number {
  const digits = (offset: number, length: number, first: number) => {
    let fraction = at.byte(offset + ((i - first) % length));
    for (let left = Math.floor((i - first) / length); left > 0; left--) fraction *= 3;
    return Math.floor(((fraction % 256) * 3) / 256);
  };
  if (i < 160) return digits(0, 32, 0);
  return i < 240 ? digits(32, 16, 160) : digits(48, 4, 240);
}

/** Weight `i` of its point of `dim` weights. */
const point = (book: CodeBookName, dim: 4 | 8, code: number, i: number) =>
  codeBook(book)[code * dim + (i % dim)]!;
const nibbleOf = (at: Reader, offset: number, index: number) =>
  (at.byte(offset + (index >> 1)) >> (4 * (index % 2))) % 16;

/** Sign `index` of 8, of which 7 are stored: an even number is negative. */
function signOfSeven(seven: number, index: number): 1 | -1 {
  const ones = Array.from({ length: 7 }, (_, i) => (seven >> i) & 1);
  const last = ones.reduce((sum, one) => sum + one) % 2;
  return [...ones, last][index] === 1 ? -1 : 1;
}
/** Sign of weight `i` in a word of four times seven bits. */
function evenSign(at: Reader, offset: number, i: number): 1 | -1 {
  const seven = Array.from({ length: 7 }, (_, k) => {
    const position = 7 * ((i >> 3) % 4) + k;
    return bit(at, offset, position) << k;
  });
  return signOfSeven(
    seven.reduce((sum, value) => sum + value),
    i % 8,
  );
}

/** f16 whose nibbles are the upper ones of four words. */
function scatteredHalf(at: Reader, offset: number): number {
  const view = new DataView(new ArrayBuffer(2));
  const nibbles = [3, 2, 1, 0].map((i) => at.word(offset + 2 * i) >> 12);
  view.setUint16(0, Number.parseInt(nibbles.map((n) => n.toString(16)).join(""), 16));
  return view.getFloat16(0);
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
  iq4_nl: (at) =>
    block(32, at, at.half(0), undefined, { code: (_, i) => iq4Levels[nibble32(at, 2, i)]! }),
  mxfp4: (at) =>
    block(32, at, 2 ** (at.byte(0) - 128), undefined, { code: (_, i) => e2m1(nibble32(at, 1, i)) }),
  iq4_xs: (at) =>
    block(256, at, at.half(0), undefined, {
      code: (_, i) => iq4Levels[nibble32(at, 8 + 16 * (i >> 5), i % 32)]!,
      scale: (_, i) => {
        const j = i >> 5;
        const low = (at.byte(4 + (j >> 1)) >> (4 * (j % 2))) % 16;
        return low + 16 * ((at.byte(2 + (j >> 2)) >> (2 * (j % 4))) % 4) - 32;
      },
    }),
  iq1_s: (at) =>
    block(256, at, at.half(0) / 8, undefined, {
      code: (_, i) => {
        const word = at.word(34 + 2 * (i >> 5));
        const code = at.byte(2 + (i >> 3)) + 256 * ((word >> (3 * ((i >> 3) % 4))) % 8);
        return 8 * point("iq1_s", 8, code, i) + (word >> 15 === 1 ? -1 : 1);
      },
      scale: (_, i) => 2 * ((at.word(34 + 2 * (i >> 5)) >> 12) % 8) + 1,
    }),
  iq1_m: (at) =>
    block(256, at, scatteredHalf(at, 48) / 8, undefined, {
      code: (_, i) => {
        const nibble = nibbleOf(at, 32, i >> 3);
        const code = at.byte(i >> 3) + 256 * (nibble % 8);
        return 8 * point("iq1_s", 8, code, i) + (nibble >= 8 ? -1 : 1);
      },
      scale: (_, i) => 2 * ((at.word(48 + 2 * (i >> 6)) >> (3 * ((i >> 4) % 4))) % 8) + 1,
    }),
  iq2_xxs: (at) =>
    block(256, at, at.half(0) / 8, undefined, {
      code: (_, i) => {
        const start = 2 + 8 * (i >> 5);
        const code = at.byte(start + ((i >> 3) % 4));
        return evenSign(at, start + 4, i) * point("iq2_xxs", 8, code, i);
      },
      scale: (_, i) => 2 * (at.byte(2 + 8 * (i >> 5) + 7) >> 4) + 1,
    }),
  iq2_xs: (at) =>
    block(256, at, at.half(0) / 8, undefined, {
      code: (_, i) => {
        const word = at.word(2 + 2 * (i >> 3));
        return signOfSeven(word >> 9, i % 8) * point("iq2_xs", 8, word % 512, i);
      },
      scale: (_, i) => 2 * nibbleOf(at, 66, i >> 4) + 1,
    }),
  iq2_s: (at) =>
    block(256, at, at.half(0) / 8, undefined, {
      code: (_, i) => {
        const high = (at.byte(66 + (i >> 5)) >> (2 * ((i >> 3) % 4))) % 4;
        const weight = point("iq2_s", 8, at.byte(2 + (i >> 3)) + 256 * high, i);
        return bit(at, 34, i) === 1 ? -weight : weight;
      },
      scale: (_, i) => 2 * nibbleOf(at, 74, i >> 4) + 1,
    }),
  iq3_xxs: (at) =>
    block(256, at, at.half(0) / 4, undefined, {
      code: (_, i) =>
        evenSign(at, 66 + 4 * (i >> 5), i) * point("iq3_xxs", 4, at.byte(2 + (i >> 2)), i),
      scale: (_, i) => 2 * (at.byte(66 + 4 * (i >> 5) + 3) >> 4) + 1,
    }),
  iq3_s: (at) =>
    block(256, at, at.half(0), undefined, {
      code: (_, i) => {
        const code = at.byte(2 + (i >> 2)) + 256 * bit(at, 66, i >> 2);
        const weight = point("iq3_s", 4, code, i);
        return bit(at, 74, i) === 1 ? -weight : weight;
      },
      scale: (_, i) => 2 * nibbleOf(at, 106, i >> 5) + 1,
    }),
  tq1_0: (at) => block(256, at, at.half(52), undefined, { code: (_, i) => ternary(at, i) - 1 }),
  tq2_0: (at) => block(256, at, at.half(64), undefined, { code: (_, i) => pair256(at, 0, i) - 1 }),
  q1_0: (at) =>
    thirtyTwos(4, (j) =>
      block(32, at, at.half(0), undefined, { code: (_, i) => 2 * bit(at, 2, 32 * j + i) - 1 }),
    ),
  q2_0: (at) =>
    thirtyTwos(2, (j) =>
      block(32, at, at.half(0), undefined, {
        code: (_, i) => ((at.byte(2 + 8 * j + (i >> 2)) >> (2 * (i % 4))) % 4) - 1,
      }),
    ),
  nvfp4: (at) =>
    thirtyTwos(2, (j) => ({
      ...block(32, at, halfUe4m3(at.byte(2 * j)), undefined, {
        code: (_, i) => {
          const byte = at.byte(4 + 16 * j + 8 * (i >> 4) + (i % 8));
          return e2m1(i % 16 < 8 ? byte % 16 : byte >> 4);
        },
      }),
      secondScale: halfUe4m3(at.byte(2 * j + 1)),
    })),
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
  const blocks = Array.from({ length: row.length / quantBlockBytes }, (_, index) => {
    const start = index * quantBlockBytes;
    return unpack({
      byte: (offset) => view.getUint8(start + offset),
      word: (offset) => view.getUint16(start + offset, true),
      signed: (offset) => view.getInt8(start + offset),
      half: (offset) => view.getFloat16(start + offset, true),
    });
  });
  return blocks.flat();
}
