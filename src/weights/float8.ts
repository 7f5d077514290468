// The 8-bit floats of "OFP8 Formats for Deep Learning" (arXiv 2209.05433): what each of the 256
// codes stands for.

/** The weight types among them; their scales lie apart (scaled-rows.ts). */
export const float8Types = ["f8_e4m3", "f8_e5m2"] as const;
export type Float8Type = (typeof float8Types)[number];

export function isFloat8(type: string): type is Float8Type {
  return float8Types.some((float8) => float8 === type);
}

type Float8 = Float8Type | "f8_e8m0";

function codes(toValue: (code: number) => number): Float32Array {
  return Float32Array.from({ length: 256 }, (_, code) => toValue(code));
}

function signed(code: number, mantissaBits: number, bias: number): number {
  const sign = code >= 0x80 ? -1 : 1;
  const exponent = (code & 0x7f) >> mantissaBits;
  const mantissa = (code & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
  return exponent === 0
    ? sign * mantissa * 2 ** (1 - bias)
    : sign * (1 + mantissa) * 2 ** (exponent - bias);
}

/** E4M3 has no infinities: only the largest code of each sign is no number. */
function e4m3(code: number): number {
  return (code & 0x7f) === 0x7f ? Number.NaN : signed(code, 3, 7);
}

function e5m2(code: number): number {
  const magnitude = code & 0x7f;
  if (magnitude > 0x7c) return Number.NaN;
  if (magnitude === 0x7c) return code >= 0x80 ? -Infinity : Infinity;
  return signed(code, 2, 15);
}

/** A power of two, for scales. */
const e8m0 = (code: number) => (code === 0xff ? Number.NaN : 2 ** (code - 127));

export const float8Values: Readonly<Record<Float8, Float32Array>> = {
  f8_e4m3: codes(e4m3),
  f8_e5m2: codes(e5m2),
  f8_e8m0: codes(e8m0),
};
