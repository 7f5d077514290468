// Jinja's filters that make numbers.
import { JinjaError } from "./errors.ts";
import { maxIntegerDigits } from "./limits.ts";
import { fixed } from "./number-format.ts";
import { asNumber, narrow, negate, toDouble } from "./operators.ts";
import { expectInteger, typeName } from "./print.ts";
import type { Filter } from "./runtime.ts";
import { strip } from "./unicode.ts";
import { type Arguments, Float, given, SafeText, Undefined, type Value } from "./values.ts";

function absolute(value: Value): Value {
  const number = asNumber(value);
  if (value instanceof Undefined) value.fail();
  if (number === undefined) {
    throw new JinjaError("type", `bad operand type for abs(): '${typeName(value)}'`);
  }
  return toDouble(number) < 0 || Object.is(toDouble(number), -0) ? negate(number) : number;
}

/** Python's `float(text)`, or undefined where it raises ValueError. */
export function parseFloatText(text: string): Float | undefined {
  const trimmed = strip(text);
  if (/^[+-]?(inf|infinity|nan)$/i.test(trimmed)) {
    const magnitude = /nan/i.test(trimmed) ? Number.NaN : Number.POSITIVE_INFINITY;
    return new Float(trimmed.startsWith("-") ? -magnitude : magnitude);
  }
  const digits = "\\d+(?:_\\d+)*";
  const pattern = new RegExp(
    `^[+-]?(?:${digits}\\.?(?:${digits})?|\\.${digits})(?:e[+-]?\\d+)?$`,
    "i",
  );
  return pattern.test(trimmed) ? new Float(Number(trimmed.replaceAll("_", ""))) : undefined;
}

/** Python's `int(text, base)`, or undefined where it raises ValueError. */
function parseIntegerText(text: string, base: number): number | bigint | undefined {
  const match = /^([+-]?)(0[box])?([0-9a-z]+(?:_[0-9a-z]+)*)$/i.exec(strip(text));
  if (match === null) return undefined;
  const [, sign, prefix, body = ""] = match;
  const prefixBase = { "0b": 2, "0o": 8, "0x": 16 }[prefix?.toLowerCase() ?? ""];
  // A prefix counts only for its own base: "0b1" is a hexadecimal number too.
  const keepsPrefix = prefix !== undefined && base !== 0 && base !== prefixBase;
  const radix = base === 0 ? (prefixBase ?? 10) : base;
  const digits = ((keepsPrefix ? prefix : "") + body).replaceAll("_", "").toLowerCase();
  let result = 0n;
  for (const digit of digits) {
    const value = Number.parseInt(digit, 36);
    if (value >= radix) return undefined;
    result = result * BigInt(radix) + BigInt(value);
  }
  return narrow(sign === "-" ? -result : result);
}

function truncateFloat(value: number): number | bigint | undefined {
  if (Number.isNaN(value)) return undefined;
  if (!Number.isFinite(value)) {
    throw new JinjaError("value", "cannot convert float infinity to integer");
  }
  const whole = Math.trunc(value) + 0;
  return Number.isSafeInteger(whole) ? whole : BigInt(whole);
}

function toInteger(value: Value, args: Arguments): Value {
  const [fallback, base] = args.bind("int", ["default", "base"]);
  const otherwise = given(fallback, 0);
  if (value instanceof Undefined) value.fail();
  const text = value instanceof SafeText ? value.text : value;
  if (typeof text === "string") {
    if (text.length > maxIntegerDigits) return otherwise;
    const radix = base === undefined ? 10 : expectInteger(base, "base");
    const whole = parseIntegerText(text, radix);
    if (whole !== undefined) return whole;
    const float = parseFloatText(text);
    if (float === undefined || !Number.isFinite(float.value)) return otherwise;
    return truncateFloat(float.value) ?? otherwise;
  }
  const number = asNumber(text);
  if (number instanceof Float) return truncateFloat(number.value) ?? otherwise;
  return number ?? otherwise;
}

function toFloat(value: Value, args: Arguments): Value {
  const [fallback] = args.bind("float", ["default"]);
  if (value instanceof Undefined) value.fail();
  const text = value instanceof SafeText ? value.text : value;
  if (typeof text === "string") return parseFloatText(text) ?? given(fallback, new Float(0));
  const number = asNumber(text);
  return number === undefined ? given(fallback, new Float(0)) : new Float(toDouble(number));
}

function round(value: Value, args: Arguments): Value {
  const [precisionArgument, methodArgument] = args.bind("round", ["precision", "method"]);
  const precision =
    precisionArgument === undefined ? 0 : expectInteger(precisionArgument, "precision");
  const method = methodArgument ?? "common";
  if (method !== "common" && method !== "ceil" && method !== "floor") {
    throw new JinjaError("runtime", "method must be common, ceil or floor");
  }
  const number = asNumber(value);
  if (value instanceof Undefined) value.fail();
  if (number === undefined) {
    throw new JinjaError("type", `type ${typeName(value)} doesn't define __round__ method`);
  }
  const double = toDouble(number);
  if (method !== "common") {
    const factor = 10 ** precision;
    const scaled = double * factor;
    return new Float((method === "ceil" ? Math.ceil(scaled) : Math.floor(scaled)) / factor);
  }
  if (number instanceof Float) {
    if (precision >= 0) return new Float(Number(fixed(double, Math.min(precision, 100))));
    return new Float(roundToTens(double, precision));
  }
  return precision >= 0 ? number : roundToTens(double, precision);
}

/** Rounds to a power of ten left of the point, half to even. */
function roundToTens(value: number, precision: number): number {
  const unit = 10 ** -precision;
  return Number(fixed(value / unit, 0)) * unit;
}

export const numberFilters: readonly (readonly [string, Filter])[] = [
  ["abs", absolute],
  ["float", toFloat],
  ["int", toInteger],
  ["round", round],
];
