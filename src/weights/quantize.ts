// Reference quantisers in plain TypeScript for the types with 32 elements per quant block and for
// the floats: bit for bit what ggml's reference quantisers give. K types come with `quantize`.
import { assert, TinferError } from "../core/errors.ts";
import { type QuantType, quantTypeInfo } from "./quant-types.ts";

const { fround } = Math;

/** Writes the quant block of the elements from `first` on to byte `start`. */
type QuantizeBlock = (input: Float32Array, first: number, view: DataView, start: number) => void;

/** The element with the largest magnitude, sign kept; the first of equals. */
function extreme(input: Float32Array, first: number): number {
  let best = 0;
  for (let i = first; i < first + 32; i++) {
    if (Math.abs(input[i]!) > Math.abs(best)) best = input[i]!;
  }
  return best;
}

function range(input: Float32Array, first: number): { min: number; max: number } {
  let min = input[first]!;
  let max = min;
  for (let i = first + 1; i < first + 32; i++) {
    min = Math.min(min, input[i]!);
    max = Math.max(max, input[i]!);
  }
  return { min, max };
}

/** 1 / d in f32; an all-zero block has d = 0 and codes that mean zero. */
function inverse(d: number): number {
  return d === 0 ? 0 : fround(1 / d);
}

/** Truncation of a value that is not negative up to rounding, capped at `top`. */
function code(value: number, top: number): number {
  return Math.max(0, Math.min(top, Math.trunc(value)));
}

/** Nibbles (low, then high half) and, where `highStart` is given, fifth bits. */
function storeCodes(
  view: DataView,
  codes: Uint8Array,
  nibbleStart: number,
  highStart?: number,
): void {
  let high = 0;
  for (let i = 0; i < 16; i++) {
    view.setUint8(nibbleStart + i, (codes[i]! & 15) | ((codes[i + 16]! & 15) << 4));
  }
  for (let i = 0; i < 32; i++) high |= (codes[i]! >> 4) << i;
  if (highStart !== undefined) view.setUint32(highStart, high >>> 0, true);
}

/** Codes 0 … 2 half - 1 around the middle `half`; the extreme element gets code 0. */
function symmetricCodes(input: Float32Array, first: number, half: number) {
  const d = fround(extreme(input, first) / -half);
  const id = inverse(d);
  const codes = new Uint8Array(32);
  for (let i = 0; i < 32; i++) {
    const scaled = fround(input[first + i]! * id);
    codes[i] = code(fround(scaled + (half + 0.5)), 2 * half - 1);
  }
  return { d, codes };
}

/** Codes 0 … `top` from the smallest to the largest element. */
function affineCodes(input: Float32Array, first: number, top: number) {
  const { min, max } = range(input, first);
  const d = fround(fround(max - min) / top);
  const id = inverse(d);
  const codes = new Uint8Array(32);
  for (let i = 0; i < 32; i++) {
    const scaled = fround(fround(input[first + i]! - min) * id);
    codes[i] = code(fround(scaled + 0.5), top);
  }
  return { d, min, codes };
}

const q4_0: QuantizeBlock = (input, first, view, start) => {
  const { d, codes } = symmetricCodes(input, first, 8);
  view.setFloat16(start, d, true);
  storeCodes(view, codes, start + 2);
};

const q4_1: QuantizeBlock = (input, first, view, start) => {
  const { d, min, codes } = affineCodes(input, first, 15);
  view.setFloat16(start, d, true);
  view.setFloat16(start + 2, min, true);
  storeCodes(view, codes, start + 4);
};

const q5_0: QuantizeBlock = (input, first, view, start) => {
  const { d, codes } = symmetricCodes(input, first, 16);
  view.setFloat16(start, d, true);
  storeCodes(view, codes, start + 6, start + 2);
};

const q5_1: QuantizeBlock = (input, first, view, start) => {
  const { d, min, codes } = affineCodes(input, first, 31);
  view.setFloat16(start, d, true);
  view.setFloat16(start + 2, min, true);
  storeCodes(view, codes, start + 8, start + 4);
};

const q8_0: QuantizeBlock = (input, first, view, start) => {
  const d = fround(Math.abs(extreme(input, first)) / 127);
  const id = inverse(d);
  view.setFloat16(start, d, true);
  for (let i = 0; i < 32; i++) {
    const scaled = fround(input[first + i]! * id);
    // Halves away from zero, as C's roundf.
    const rounded = Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5);
    view.setInt8(start + 2 + i, rounded);
  }
};

/** To nearest even on the upper 16 bits; a NaN stays one. */
const bf16: QuantizeBlock = (input, first, view, start) => {
  const word = new DataView(new ArrayBuffer(4));
  word.setFloat32(0, input[first]!);
  const bits = word.getUint32(0);
  const rounded = Number.isNaN(input[first]!)
    ? (bits >>> 16) | 64
    : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
  view.setUint16(start, rounded, true);
};

const byType: Partial<Record<QuantType, QuantizeBlock>> = {
  f32: (input, first, view, start) => view.setFloat32(start, input[first]!, true),
  f16: (input, first, view, start) => view.setFloat16(start, input[first]!, true),
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
};

export function canQuantize(type: QuantType): boolean {
  return byType[type] !== undefined;
}

/** Quantises `input`, a whole number of quant blocks, into exactly the bytes of `output`. */
export function quantizeRow(type: QuantType, input: Float32Array, output: Uint8Array): void {
  const quantizeBlock = byType[type];
  if (quantizeBlock === undefined) {
    throw new TinferError("unsupported", `tinfer cannot make weights of type ${type} yet`, {
      hint: `it makes ${Object.keys(byType).join(", ")}`,
    });
  }
  const { quantBlockSize, quantBlockBytes } = quantTypeInfo(type);
  const numBlocks = input.length / quantBlockSize;
  assert(
    Number.isInteger(numBlocks) && output.length === numBlocks * quantBlockBytes,
    `${input.length} elements do not fill ${output.length} bytes of ${type}`,
  );
  const view = new DataView(output.buffer, output.byteOffset, output.byteLength);
  for (let block = 0; block < numBlocks; block++) {
    quantizeBlock(input, block * quantBlockSize, view, block * quantBlockBytes);
  }
}
