// Dequantisation of the float types and of the integer types stored as they are.
import type { DequantizeBlock } from "./dequantize-block.ts";
import { float8Values } from "./float8.ts";

/** The upper half of an f32: sign, 8 bits of exponent (bias 127), 7 bits of mantissa. */
function bf16ToNumber(half: number): number {
  const sign = half >= 0x8000 ? -1 : 1;
  const exponent = (half >> 7) & 255;
  const mantissa = half & 127;
  if (exponent === 255) return mantissa === 0 ? sign * Infinity : Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -133;
  return sign * (128 + mantissa) * 2 ** (exponent - 134);
}

export const dequantizeFloat = {
  f32: (view, start, output, first) => {
    output[first] = view.getFloat32(start, true);
  },
  f16: (view, start, output, first) => {
    output[first] = view.getFloat16(start, true);
  },
  bf16: (view, start, output, first) => {
    output[first] = bf16ToNumber(view.getUint16(start, true));
  },
  /** Codes alone; what they are multiplied by lies elsewhere. */
  f8_e4m3: (view, start, output, first) => {
    output[first] = float8Values.f8_e4m3[view.getUint8(start)]!;
  },
  f8_e5m2: (view, start, output, first) => {
    output[first] = float8Values.f8_e5m2[view.getUint8(start)]!;
  },
} as const satisfies Record<string, DequantizeBlock>;
