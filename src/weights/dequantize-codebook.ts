// Dequantisation of types whose codes look up a small table or are ternary digits: iq4_nl,
// iq4_xs, mxfp4, nvfp4, tq1_0, tq2_0. (Those of iq1 to iq3 are in `dequantize-points.ts`.)
import type { DequantizeBlock } from "./dequantize-block.ts";

const { fround } = Math;

/** The non-linear 4-bit levels of the iq4 types, denser near zero, fitted to weights. */
const iq4Levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/**
 * E2M1 floats of the OCP microscaling formats: 2 exponent bits, 1 mantissa bit, sign in bit 3.
 * Minus zero is plain zero, as ggml has it.
 */
const e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6];

/** d f16, 16 bytes of nibbles as in q4_0: x = d level. */
const iq4_nl: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  for (let i = 0; i < 16; i++) {
    const byte = view.getUint8(start + 2 + i);
    output[first + i] = d * iq4Levels[byte & 15]!;
    output[first + i + 16] = d * iq4Levels[byte >> 4]!;
  }
};

/**
 * d f16, eight bit pairs of high scale bits, eight nibbles of low scale bits, eight runs of 32
 * elements as in iq4_nl: x = d (scale - 32) level.
 */
const iq4_xs: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  const highs = view.getUint16(start + 2, true);
  const lows = view.getUint32(start + 4, true);
  for (let run = 0; run < 8; run++) {
    const low = (lows >>> (4 * run)) & 15;
    const high = (highs >> (2 * run)) & 3;
    const scale = fround(d * (low + 16 * high - 32));
    for (let i = 0; i < 16; i++) {
      const byte = view.getUint8(start + 8 + 16 * run + i);
      output[first + 32 * run + i] = scale * iq4Levels[byte & 15]!;
      output[first + 32 * run + i + 16] = scale * iq4Levels[byte >> 4]!;
    }
  }
};

/** A power of two as E8M0 exponent (bias 127), 16 bytes of E2M1 nibbles as in q4_0. */
const mxfp4: DequantizeBlock = (view, start, output, first) => {
  const scale = 2 ** (view.getUint8(start) - 127);
  for (let i = 0; i < 16; i++) {
    const byte = view.getUint8(start + 1 + i);
    output[first + i] = scale * e2m1[byte & 15]!;
    output[first + i + 16] = scale * e2m1[byte >> 4]!;
  }
};

/** Unsigned E4M3 (bias 7); the top bit is unused and the code 0x7f, a NaN, counts as zero. */
function ue4m3(code: number): number {
  if (code === 0x7f) return 0;
  const exponent = (code >> 3) & 15;
  const mantissa = code & 7;
  return exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7);
}

/** Four E4M3 scales, then four runs of 16 elements: 8 bytes of E2M1 nibbles, low ones first. */
const nvfp4: DequantizeBlock = (view, start, output, first) => {
  for (let run = 0; run < 4; run++) {
    const scale = ue4m3(view.getUint8(start + run));
    for (let i = 0; i < 8; i++) {
      const byte = view.getUint8(start + 4 + 8 * run + i);
      output[first + 16 * run + i] = scale * e2m1[byte & 15]!;
      output[first + 16 * run + i + 8] = scale * e2m1[byte >> 4]!;
    }
  }
};

/**
 * Ternary digit `digit` (0 is the most significant) of a byte that stores the fraction
 * 0.t0t1t2t3t4 in base 3, scaled to 256: multiply by 3^digit mod 1, then by 3, take the integer.
 */
function trit(byte: number, digit: number): number {
  const fraction = (byte * 3 ** digit) & 255;
  return (fraction * 3) >> 8;
}

/**
 * 48 bytes of five digits and 4 bytes of four, d f16: x = d (t - 1). The digits of 32 bytes cover
 * 160 elements (first digit of each byte, then the second …), those of 16 bytes 80, of 4 bytes 16.
 */
const tq1_0: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start + 52, true);
  let next = first;
  const spread = (offset: number, numBytes: number, numDigits: number): void => {
    for (let digit = 0; digit < numDigits; digit++) {
      for (let i = 0; i < numBytes; i++) {
        output[next] = d * (trit(view.getUint8(start + offset + i), digit) - 1);
        next += 1;
      }
    }
  };
  spread(0, 32, 5);
  spread(32, 16, 5);
  spread(48, 4, 4);
};

/** 64 bytes of four 2-bit digits, d f16: x = d (q - 1); in each half as in q2_k. */
const tq2_0: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start + 64, true);
  for (let i = 0; i < 256; i++) {
    const codes = view.getUint8(start + 32 * (i >> 7) + (i & 31));
    output[first + i] = d * (((codes >> (2 * ((i >> 5) & 3))) & 3) - 1);
  }
};

export const dequantizeCodebook = { iq4_nl, iq4_xs, mxfp4, nvfp4, tq1_0, tq2_0 } as const;
