// Dequantisation of the quant blocks of 32 elements with one f16 scale (q4_0 to q8_0) and of the
// 1- and 2-bit types of the same plan (q1_0, q2_0). Products are rounded to f32 as in ggml.
import type { DequantizeBlock } from "./dequantize-block.ts";

const { fround } = Math;

/** Byte `index` of 16 holds element `index` in its low and `index + 16` in its high nibble. */
function nibble(view: DataView, start: number, index: number): number {
  const byte = view.getUint8(start + (index % 16));
  return index < 16 ? byte & 15 : byte >> 4;
}

/** d f16, 16 bytes of nibbles: x = d (q - 8). */
const q4_0: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  for (let i = 0; i < 32; i++) output[first + i] = d * (nibble(view, start + 2, i) - 8);
};

/** d f16, m f16, 16 bytes of nibbles: x = d q + m. */
const q4_1: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  const m = view.getFloat16(start + 2, true);
  for (let i = 0; i < 32; i++) {
    output[first + i] = fround(d * nibble(view, start + 4, i)) + m;
  }
};

/** d f16, 32 fifth bits, 16 bytes of nibbles: x = d (q - 16). */
const q5_0: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  const high = view.getUint32(start + 2, true);
  for (let i = 0; i < 32; i++) {
    const q = nibble(view, start + 6, i) + 16 * ((high >>> i) & 1);
    output[first + i] = d * (q - 16);
  }
};

/** d f16, m f16, 32 fifth bits, 16 bytes of nibbles: x = d q + m. */
const q5_1: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  const m = view.getFloat16(start + 2, true);
  const high = view.getUint32(start + 4, true);
  for (let i = 0; i < 32; i++) {
    const q = nibble(view, start + 8, i) + 16 * ((high >>> i) & 1);
    output[first + i] = fround(d * q) + m;
  }
};

/** d f16, 32 signed bytes: x = d q. */
const q8_0: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  for (let i = 0; i < 32; i++) output[first + i] = d * view.getInt8(start + 2 + i);
};

/** d f16, 128 bits: x = d where the bit is set, else -d. */
const q1_0: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  for (let i = 0; i < 128; i++) {
    const bit = (view.getUint8(start + 2 + (i >> 3)) >> (i & 7)) & 1;
    output[first + i] = bit === 1 ? d : -d;
  }
};

/** d f16, 64 codes of two bits, four to a byte in order: x = d (q - 1). */
const q2_0: DequantizeBlock = (view, start, output, first) => {
  const d = view.getFloat16(start, true);
  for (let i = 0; i < 64; i++) {
    const q = (view.getUint8(start + 2 + (i >> 2)) >> (2 * (i & 3))) & 3;
    output[first + i] = d * (q - 1);
  }
};

export const dequantizeLegacy = { q4_0, q4_1, q5_0, q5_1, q8_0, q1_0, q2_0 } as const;
