// Dequantisation of the float types and of the integer types stored as they are.
import type { DequantizeBlock } from "./dequantize-block.ts";

// bf16 is the upper half of an f32.
const bits = new DataView(new ArrayBuffer(4));

function bf16ToNumber(half: number): number {
  bits.setUint32(0, half * 2 ** 16);
  return bits.getFloat32(0);
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
} as const satisfies Record<string, DequantizeBlock>;
