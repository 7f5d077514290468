// Random quant blocks with scales that make weights of standard deviation about 1 / sqrt(cols),
// as trained ones have, so that activations of a random model stay finite.
import type { QuantType } from "../weights/quant-types.ts";
import { quantTypeInfo } from "../weights/quant-types.ts";

/** Where a type's f16 scales lie in its block, and each one's value at unit deviation. */
type Scales = readonly (readonly [offset: number, scale: number])[];

// Random bits have these deviations: a 4-bit value 4.6, 5-bit 9.2, 8-bit 74, times sub-scales.
const scales: Partial<Record<QuantType, Scales>> = {
  q4_0: [[0, 1 / 4.6]],
  q4_1: [
    [0, 1 / 4.6],
    [2, -7.5 / 4.6],
  ],
  q5_0: [[0, 1 / 9.2]],
  q5_1: [
    [0, 1 / 9.2],
    [2, -15.5 / 9.2],
  ],
  q8_0: [[0, 1 / 74]],
  q2_k: [
    [80, 1 / 16],
    [82, 1.5 / 16],
  ],
  q3_k: [[108, 1 / 43]],
  q4_k: [
    [0, 1 / 250],
    [2, 7.5 / 250],
  ],
  q5_k: [
    [0, 1 / 500],
    [2, 15.5 / 500],
  ],
  q6_k: [[208, 1 / 1350]],
  iq4_nl: [[0, 1 / 70]],
  iq4_xs: [[0, 1 / 1300]],
  iq1_s: [[0, 1 / 7]],
  iq2_xxs: [[0, 1 / 70]],
  iq2_xs: [[0, 1 / 70]],
  iq2_s: [[0, 1 / 70]],
  iq3_xxs: [[0, 1 / 160]],
  iq3_s: [[0, 1 / 150]],
  tq1_0: [[52, 1 / 0.8]],
  tq2_0: [[64, 1 / 1.1]],
};

const floats = ["f32", "f16", "bf16"] as const;

/** Types whose scales are no f16 fields of their own. */
const ownScales: Partial<Record<QuantType, (block: DataView, deviation: number) => void>> = {
  // A power of two in the first byte; random E2M1 values have deviation 2.9.
  mxfp4: (block, deviation) => {
    block.setUint8(0, 127 + Math.round(Math.log2(deviation / 2.9)));
  },
  // The upper nibbles of the last four words are one f16.
  iq1_m: (block, deviation) => {
    const scale = new DataView(new ArrayBuffer(2));
    scale.setFloat16(0, deviation / 7);
    for (let i = 0; i < 4; i++) {
      const nibble = (scale.getUint16(0) >> (4 * i)) & 15;
      const low = block.getUint16(48 + 2 * i, true) & 0xfff;
      block.setUint16(48 + 2 * i, low | (nibble << 12), true);
    }
  },
};

export function canRandomise(name: string): name is QuantType {
  return name in scales || name in ownScales || (floats as readonly string[]).includes(name);
}

/** Blocks made once and repeated: a pass over them is as long as over different ones. */
const patternBlocks = 4096;

/** `bytes` bytes of blocks of `type`, in chunks. */
export function* randomQuantBlocks(
  type: QuantType,
  bytes: number,
  cols: number,
  seed: number,
): Generator<Uint8Array> {
  const deviation = 1 / Math.sqrt(cols);
  const pattern = makePattern(type, deviation, seed);
  for (let left = bytes; left > 0; left -= pattern.length) {
    yield left >= pattern.length ? pattern : pattern.subarray(0, left);
  }
}

function makePattern(type: QuantType, deviation: number, seed: number): Uint8Array {
  const { quantBlockBytes } = quantTypeInfo(type);
  const random = xorshift(seed);
  if (type === "f32" || type === "f16" || type === "bf16") {
    return floatPattern(type, deviation, random);
  }
  const pattern = new Uint8Array(patternBlocks * quantBlockBytes);
  const view = new DataView(pattern.buffer);
  for (let i = 0; i < pattern.length; i++) pattern[i] = random() >>> 8;
  for (let block = 0; block < patternBlocks; block++) {
    const bytes = new DataView(pattern.buffer, block * quantBlockBytes, quantBlockBytes);
    ownScales[type]?.(bytes, deviation);
    for (const [offset, scale] of scales[type] ?? []) {
      const jitter = 0.5 + (random() & 0xff) / 256;
      view.setFloat16(block * quantBlockBytes + offset, scale * deviation * jitter, true);
    }
  }
  return pattern;
}

function floatPattern(
  type: "f32" | "f16" | "bf16",
  deviation: number,
  random: () => number,
): Uint8Array {
  const count = patternBlocks * 32;
  const view = new DataView(new ArrayBuffer(count * (type === "f32" ? 4 : 2)));
  const word = new DataView(new ArrayBuffer(4));
  for (let i = 0; i < count; i++) {
    // Uniform on ±sqrt(3) has deviation 1.
    const value = (random() / 2 ** 31 - 1) * Math.sqrt(3) * deviation;
    if (type === "f32") view.setFloat32(i * 4, value, true);
    else if (type === "f16") view.setFloat16(i * 2, value, true);
    else {
      word.setFloat32(0, value, true);
      view.setUint16(i * 2, word.getUint16(2, true), true);
    }
  }
  return new Uint8Array(view.buffer);
}

/** Marsaglia's xorshift32 (Journal of Statistical Software 8, 14): 32 random bits a call. */
function xorshift(seed: number): () => number {
  let state = (seed * 2654435769 + 1) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
