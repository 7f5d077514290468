// Decimal digits of a float to a given precision, rounded half to even on the exact value as
// Python rounds, and the shapes that `%f %e %g` and format specs give them.
import { JinjaError } from "./errors.ts";

/** Most digits after the point that a format may ask for (the limit of `toFixed`). */
const maxPrecision = 100;

export function checkPrecision(precision: number): number {
  if (precision > maxPrecision) {
    throw new JinjaError("limit", `a format takes at most ${maxPrecision} digits`);
  }
  return precision;
}

/** `value` with `precision` digits after the point. */
export function fixed(value: number, precision: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (Math.abs(value) >= 1e21) {
    const digits = BigInt(value).toString();
    return precision > 0 ? `${digits}.${"0".repeat(precision)}` : digits;
  }
  const rounded = value.toFixed(precision);
  const text = isTie(value, precision) ? roundTieToEven(value, precision, rounded) : rounded;
  return Object.is(value, -0) || (value < 0 && !text.startsWith("-")) ? `-${text}` : text;
}

/** Whether `value` lies exactly between two neighbours of that precision. */
function isTie(value: number, precision: number): boolean {
  if (precision >= maxPrecision) return false;
  // A double whose fraction ends in 5 right there is a multiple of 2^-(precision + 1).
  const scaled = value * 2 ** (precision + 1);
  return Number.isInteger(scaled) && Math.abs(scaled) % 2 === 1;
}

/** `toFixed` breaks ties away from zero: take the other neighbour if its digit is even. */
function roundTieToEven(value: number, precision: number, rounded: string): string {
  const exact = value.toFixed(precision + 1);
  if (!exact.endsWith("5")) return rounded;
  const truncated = precision === 0 ? exact.slice(0, -2) : exact.slice(0, -1);
  return Number(truncated.at(-1)) % 2 === 0 ? truncated : rounded;
}

/** `d.ddde+XX`. */
export function scientific(value: number, precision: number): string {
  if (!Number.isFinite(value)) return fixed(value, 0);
  const [digits = "", exponent = ""] = value.toExponential(precision).split("e");
  const sign = Object.is(value, -0) ? "-" : "";
  return `${sign}${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}

/** `%g`: the shorter of the two at `precision` significant digits. */
export function general(value: number, precision: number, keepZeros: boolean): string {
  if (!Number.isFinite(value)) return fixed(value, 0);
  const significant = Math.max(1, precision);
  const exponent = value === 0 ? 0 : Number(value.toExponential(significant - 1).split("e")[1]);
  const isFixed = exponent >= -4 && exponent < significant;
  const text = isFixed
    ? fixed(value, Math.min(maxPrecision, significant - 1 - exponent))
    : scientific(value, significant - 1);
  if (keepZeros || !text.includes(".")) return text;
  const [digits = "", tail] = text.split("e");
  const shorter = digits.replace(/0+$/, "").replace(/\.$/, "");
  return tail === undefined ? shorter : `${shorter}e${tail}`;
}

/** Thousands separators in the digits before the point. */
export function group(digits: string, separator: string, size: number): string {
  const [whole = "", ...rest] = digits.split(/(?=[.e])/);
  const pattern = new RegExp(`\\B(?=([0-9a-fA-F]{${size}})+$)`, "g");
  return whole.replace(pattern, separator) + rest.join("");
}
