// Dequantisation of the K types: 256 elements with f16 scales over small integer scales.
// Products are rounded to f32 in ggml's order: first scale times small scale, then the element.
import type { DequantizeBlock } from "./dequantize-block.ts";

const { fround } = Math;

/**
 * 16 bytes of scale (low nibble) and minimum (high) for runs of 16 elements, 64 bytes of 2-bit
 * codes, d f16, dmin f16: x = d scale q - dmin minimum. In each half of 128 elements the code of
 * element i lies in byte i mod 32, at bits 2 (i div 32).
 */
const q2_k: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start + 80, true);
  const dmin = view.getFloat16(start + 82, true);
  for (let i = 0; i < 256; i++) {
    const scales = view.getUint8(start + (i >> 4));
    const codes = view.getUint8(start + 16 + 32 * (i >> 7) + (i & 31));
    const q = (codes >> (2 * ((i >> 5) & 3))) & 3;
    output[first + i] = fround(fround(d * (scales & 15)) * q) - fround(dmin * (scales >> 4));
  }
};

/** The 6-bit scale of run `index` of 16: low nibbles in bytes 0-7, high bit pairs in 8-11. */
function q3Scale(view: DataView, start: number, index: number): number {
  const lowByte = view.getUint8(start + (index & 7));
  const low = index < 8 ? lowByte & 15 : lowByte >> 4;
  const high = (view.getUint8(start + 8 + (index & 3)) >> (2 * (index >> 2))) & 3;
  return low + 16 * high - 32;
}

/**
 * 32 bytes of third bits (bit i div 32 of byte i mod 32), 64 bytes of 2-bit codes as in q2_k,
 * 12 bytes of scales, d f16: x = d scale (q - 4), q of three bits.
 */
const q3_k: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start + 108, true);
  for (let i = 0; i < 256; i++) {
    const codes = view.getUint8(start + 32 + 32 * (i >> 7) + (i & 31));
    const low = (codes >> (2 * ((i >> 5) & 3))) & 3;
    const high = (view.getUint8(start + (i & 31)) >> (i >> 5)) & 1;
    const scale = fround(d * q3Scale(view, start + 96, i >> 4));
    output[first + i] = scale * (low + 4 * high - 4);
  }
};

/**
 * The 6-bit scale of run `index` of 8, from 12 bytes: the first four have their six bits in
 * bytes 0-3, the others four bits in bytes 8-11 and the top two bits of bytes 0-3.
 */
function kScale(view: DataView, start: number, index: number): number {
  if (index < 4) return view.getUint8(start + index) & 63;
  return (view.getUint8(start + index + 4) & 15) | ((view.getUint8(start + index - 4) >> 6) << 4);
}

/** The 6-bit minimum of run `index`: as `kScale`, in bytes 4-7 and the high nibbles of 8-11. */
function kMinimum(view: DataView, start: number, index: number): number {
  if (index < 4) return view.getUint8(start + index + 4) & 63;
  return (view.getUint8(start + index + 4) >> 4) | ((view.getUint8(start + index) >> 6) << 4);
}

/** Runs of 32 in pairs: byte i mod 32 of pair i div 64 has the first in its low nibble. */
function kNibble(view: DataView, start: number, index: number): number {
  const byte = view.getUint8(start + 32 * (index >> 6) + (index & 31));
  return (index & 32) === 0 ? byte & 15 : byte >> 4;
}

/** d f16, dmin f16, 12 bytes of scales and minima, 128 bytes of nibbles: x = d s q - dmin m. */
const q4_k: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  const dmin = view.getFloat16(start + 2, true);
  for (let i = 0; i < 256; i++) {
    const scale = fround(d * kScale(view, start + 4, i >> 5));
    const minimum = fround(dmin * kMinimum(view, start + 4, i >> 5));
    output[first + i] = fround(scale * kNibble(view, start + 16, i)) - minimum;
  }
};

/** As q4_k, with 32 bytes of fifth bits (bit i div 32 of byte i mod 32) before the nibbles. */
const q5_k: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  const dmin = view.getFloat16(start + 2, true);
  for (let i = 0; i < 256; i++) {
    const scale = fround(d * kScale(view, start + 4, i >> 5));
    const minimum = fround(dmin * kMinimum(view, start + 4, i >> 5));
    const high = (view.getUint8(start + 16 + (i & 31)) >> (i >> 5)) & 1;
    const q = kNibble(view, start + 48, i) + 16 * high;
    output[first + i] = fround(scale * q) - minimum;
  }
};

/**
 * 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d f16: x = d scale (q - 32).
 * In each half of 128 elements the nibble of element i lies in byte i mod 64 (low nibble for the
 * first 64), its upper bits in byte i mod 32 at bits 2 (i div 32).
 */
const q6_k: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start + 208, true);
  for (let i = 0; i < 256; i++) {
    const half = i >> 7;
    const nibbles = view.getUint8(start + 64 * half + (i & 63));
    const low = (i & 64) === 0 ? nibbles & 15 : nibbles >> 4;
    const high = (view.getUint8(start + 128 + 32 * half + (i & 31)) >> (2 * ((i >> 5) & 3))) & 3;
    const scale = fround(d * view.getInt8(start + 192 + (i >> 4)));
    output[first + i] = scale * (low + 16 * high - 32);
  }
};

/** d f32, 256 signed bytes, 16 sums that are not needed here: x = d q. */
const q8_k: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat32(start, true);
  for (let i = 0; i < 256; i++) output[first + i] = d * view.getInt8(start + 4 + i);
};

export const dequantizeK = { q2_k, q3_k, q4_k, q5_k, q6_k, q8_k } as const;
