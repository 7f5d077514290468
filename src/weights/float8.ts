// The 8-bit floats of "OFP8 Formats for Deep Learning" (arXiv 2209.05433): what each of the 256
// codes stands for.

export type Float8 = "F8_E4M3" | "F8_E5M2" | "F8_E8M0";

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
  F8_E4M3: codes(e4m3),
  F8_E5M2: codes(e5m2),
  F8_E8M0: codes(e8m0),
};
