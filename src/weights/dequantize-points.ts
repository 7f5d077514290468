// Dequantisation of the types whose codes stand for points of 8 or 4 weights (IQ1 to IQ3). Each
// product of d, scale and point is exact in f32, whatever its order.
import { type CodeBookName, codeBook } from "./codebooks.ts";
import type { DequantizeBlock } from "./dequantize-block.ts";

/** What tells one type of 256 weights from another; `start` is the block's first byte. */
interface Points {
  readonly book: CodeBookName;
  readonly dim: 4 | 8;
  /** f32 that a sub-block's odd scale multiplies. */
  readonly d: (view: DataView, start: number) => number;
  /** Scale of run `unit` of 16 weights. */
  readonly scale: (view: DataView, start: number, unit: number) => number;
  /** Rank of point `index`. */
  readonly code: (view: DataView, start: number, index: number) => number;
  /** A set bit for each negative of the weights 8 index …; none where undefined. */
  readonly signs?: (view: DataView, start: number, index: number) => number;
  /** What is added to the 8 weights of point `index`. */
  readonly shift?: (view: DataView, start: number, index: number) => number;
}

function dequantizePoints(points: Points): DequantizeBlock {
  return (view, start, output, first) => {
    const book = codeBook(points.book);
    const d = points.d(view, start);
    for (let i = 0; i < 256; i++) {
      const index = Math.floor(i / points.dim);
      const weight = book[points.code(view, start, index) * points.dim + (i % points.dim)]!;
      const signs = points.signs?.(view, start, i >> 3) ?? 0;
      const signed = ((signs >> (i & 7)) & 1) === 1 ? -weight : weight;
      const shift = points.shift?.(view, start, index) ?? 0;
      output[first + i] = d * (2 * points.scale(view, start, i >> 4) + 1) * (signed + shift);
    }
  };
}

const half =
  (offset: number, divisor: number): Points["d"] =>
  (view, start) =>
    view.getFloat16(start + offset, true) / divisor;

/** Seven signs of 8; the eighth makes the number of negatives even. */
function evenSigns(seven: number): number {
  let parity = seven ^ (seven >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven | ((parity & 1) << 7);
}

/** Word `sub` of 32 bits, `stride` bytes apart: four times 7 sign bits, then a 4-bit scale. */
function signWords(offset: number, stride: number): Required<Pick<Points, "signs" | "scale">> {
  const word = (view: DataView, start: number, sub: number) =>
    view.getUint32(start + offset + stride * sub, true);
  return {
    signs: (view, start, index) =>
      evenSigns((word(view, start, index >> 2) >>> (7 * (index & 3))) & 127),
    scale: (view, start, unit) => word(view, start, unit >> 1) >>> 28,
  };
}

/** Nibble `index` of the bytes from `offset` on, low ones first. */
const nibbleAt = (view: DataView, offset: number, index: number) =>
  (view.getUint8(offset + (index >> 1)) >> (4 * (index & 1))) & 15;

/** d f16, then 8 times four codes and a word of signs and scale. */
const iq2_xxs = dequantizePoints({
  book: "iq2_xxs",
  dim: 8,
  d: half(0, 8),
  code: (view, start, index) => view.getUint8(start + 2 + 8 * (index >> 2) + (index & 3)),
  ...signWords(6, 8),
});

/** d f16, 32 words of a 9-bit code and 7 signs, 16 nibbles of scales. */
const iq2_xs = dequantizePoints({
  book: "iq2_xs",
  dim: 8,
  d: half(0, 8),
  code: (view, start, index) => view.getUint16(start + 2 + 2 * index, true) & 511,
  signs: (view, start, index) => evenSigns(view.getUint16(start + 2 + 2 * index, true) >> 9),
  scale: (view, start, unit) => nibbleAt(view, start + 66, unit),
});

/** d f16, 32 low bytes of codes, 32 bytes of signs, 32 bit pairs of codes, 16 nibbles of scales. */
const iq2_s = dequantizePoints({
  book: "iq2_s",
  dim: 8,
  d: half(0, 8),
  code: (view, start, index) => {
    const high = (view.getUint8(start + 66 + (index >> 2)) >> (2 * (index & 3))) & 3;
    return view.getUint8(start + 2 + index) | (high << 8);
  },
  signs: (view, start, index) => view.getUint8(start + 34 + index),
  scale: (view, start, unit) => nibbleAt(view, start + 74, unit),
});

/** d f16, 64 codes, 8 words of signs and scale. */
const iq3_xxs = dequantizePoints({
  book: "iq3_xxs",
  dim: 4,
  d: half(0, 4),
  code: (view, start, index) => view.getUint8(start + 2 + index),
  ...signWords(66, 4),
});

/** d f16, 64 low bytes of codes, 64 ninth bits, 32 bytes of signs, 8 nibbles of scales. */
const iq3_s = dequantizePoints({
  book: "iq3_s",
  dim: 4,
  d: half(0, 1),
  code: (view, start, index) => {
    const high = (view.getUint8(start + 66 + (index >> 3)) >> (index & 7)) & 1;
    return view.getUint8(start + 2 + index) | (high << 8);
  },
  signs: (view, start, index) => view.getUint8(start + 74 + index),
  scale: (view, start, unit) => nibbleAt(view, start + 106, unit >> 1),
});

/** d f16, 32 low bytes of codes, 8 words: four times 3 upper bits, a 3-bit scale, a sign. */
const iq1_s = dequantizePoints({
  book: "iq1_s",
  dim: 8,
  d: half(0, 1),
  code: (view, start, index) => {
    const word = view.getUint16(start + 34 + 2 * (index >> 2), true);
    return view.getUint8(start + 2 + index) | (((word >> (3 * (index & 3))) & 7) << 8);
  },
  scale: (view, start, unit) => (view.getUint16(start + 34 + 2 * (unit >> 1), true) >> 12) & 7,
  shift: (view, start, index) =>
    view.getUint16(start + 34 + 2 * (index >> 2), true) >= 0x8000 ? -1 / 8 : 1 / 8,
});

const floatOfHalf = new DataView(new ArrayBuffer(2));

/**
 * 32 low bytes of codes, 32 nibbles of 3 upper bits and a sign, 4 words of four 3-bit scales,
 * whose upper nibbles together are d.
 */
const iq1_m = dequantizePoints({
  book: "iq1_s",
  dim: 8,
  d: (view, start) => {
    let bits = 0;
    for (let i = 0; i < 4; i++) {
      bits |= (view.getUint16(start + 48 + 2 * i, true) >> 12) << (4 * i);
    }
    floatOfHalf.setUint16(0, bits);
    return floatOfHalf.getFloat16(0);
  },
  code: (view, start, index) =>
    view.getUint8(start + index) | ((nibbleAt(view, start + 32, index) & 7) << 8),
  scale: (view, start, unit) =>
    (view.getUint16(start + 48 + 2 * (unit >> 2), true) >> (3 * (unit & 3))) & 7,
  shift: (view, start, index) => (nibbleAt(view, start + 32, index) >= 8 ? -1 / 8 : 1 / 8),
});

export const dequantizePointTypes = {
  iq1_s,
  iq1_m,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
} as const;
