// Arithmetic of `+ - * / // % **` with Python's rules for int, float, str and sequences.

import { JinjaError } from "./errors.ts";
import { maxIntegerBits, maxListLen, maxTextLen } from "./limits.ts";
import { formatPercent } from "./percent-format.ts";
import { print, typeName } from "./print.ts";
import { Float, SafeText, Tuple, Undefined, type Value } from "./values.ts";

type Number_ = number | bigint | Float;

export type BinaryOperator = "+" | "-" | "*" | "/" | "//" | "%" | "**";

export function calculate(operator: BinaryOperator, left: Value, right: Value): Value {
  const a = asNumber(left);
  const b = asNumber(right);
  if (a !== undefined && b !== undefined) return calculateNumbers(operator, a, b);
  if (left instanceof Undefined) left.fail();
  if (operator === "+") {
    const sum = concatenate(left, right);
    if (sum !== undefined) return sum;
  } else if (operator === "*") {
    const repeated = repeat(left, right) ?? repeat(right, left);
    if (repeated !== undefined) return repeated;
  } else if (operator === "%" && typeof left === "string") {
    return formatPercent(left, right);
  } else if (operator === "%" && left instanceof SafeText) {
    return new SafeText(formatPercent(left.text, right));
  }
  if (right instanceof Undefined) right.fail();
  const sides = `'${typeName(left)}' and '${typeName(right)}'`;
  throw new JinjaError("type", `unsupported operand type(s) for ${operator}: ${sides}`);
}

/** The number that arithmetic sees: a bool counts as 0 or 1. */
export function asNumber(value: Value): Number_ | undefined {
  if (typeof value === "number" || typeof value === "bigint") return value;
  if (typeof value === "boolean") return Number(value);
  return value instanceof Float ? value : undefined;
}

export function toDouble(value: Number_): number {
  return value instanceof Float ? value.value : Number(value);
}

function calculateNumbers(operator: BinaryOperator, left: Number_, right: Number_): Value {
  if (left instanceof Float || right instanceof Float || operator === "/") {
    return new Float(calculateDoubles(operator, toDouble(left), toDouble(right)));
  }
  if (typeof left === "number" && typeof right === "number" && operator !== "**") {
    const result = calculateIntegers(operator, left, right);
    if (Number.isSafeInteger(result)) return result;
  }
  if (operator === "**" && right < 0) {
    return new Float(calculateDoubles(operator, Number(left), Number(right)));
  }
  return narrow(calculateBigints(operator, BigInt(left), BigInt(right)));
}

const maxInteger = 1n << BigInt(maxIntegerBits);

/** An int in the form that values use: number while it is exact, bigint beyond. */
export function narrow(value: bigint): number | bigint {
  const small = Number(value);
  if (value > maxInteger || value < -maxInteger) fail("limit", "an integer grew too large");
  return Number.isSafeInteger(small) ? small : value;
}

function calculateDoubles(operator: BinaryOperator, a: number, b: number): number {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "**":
      if (a === 0 && b < 0) fail("value", "0.0 cannot be raised to a negative power");
      if (a < 0 && !Number.isInteger(b)) fail("type", "complex numbers are not supported");
      return a ** b;
    default:
      break;
  }
  if (b === 0) fail("value", "division by zero");
  if (operator === "/") return a / b;
  // The remainder takes the sign of the divisor.
  const remainder = a % b;
  const modulo = remainder !== 0 && remainder < 0 !== b < 0 ? remainder + b : remainder;
  if (operator === "%") return modulo === 0 ? (b < 0 ? -0 : 0) : modulo;
  const quotient = (a - modulo) / b;
  if (quotient !== 0) return Math.round(quotient);
  return a / b < 0 || Object.is(a / b, -0) ? -0 : 0;
}

function calculateIntegers(operator: BinaryOperator, a: number, b: number): number {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      // + 0 turns JavaScript's -0, which no int is, into 0.
      return a * b + 0;
    default:
      if (b === 0) fail("value", "integer division or modulo by zero");
  }
  if (operator === "//") return Math.floor(a / b) + 0;
  const remainder = a % b;
  return (remainder !== 0 && remainder < 0 !== b < 0 ? remainder + b : remainder) + 0;
}

function calculateBigints(operator: BinaryOperator, a: bigint, b: bigint): bigint {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "**": {
      const bits = BigInt(a.toString(2).length) * b;
      if (a * a > 1n && bits > maxIntegerBits) fail("limit", "the power is too large");
      return a ** b;
    }
    default:
      if (b === 0n) fail("value", "integer division or modulo by zero");
  }
  const remainder = a % b;
  const modulo = remainder !== 0n && remainder < 0n !== b < 0n ? remainder + b : remainder;
  return operator === "%" ? modulo : (a - modulo) / b;
}

function concatenate(left: Value, right: Value): Value | undefined {
  if (typeof left === "string" && typeof right === "string") return left + right;
  if (left instanceof SafeText || right instanceof SafeText) {
    const isText = (value: Value) => typeof value === "string" || value instanceof SafeText;
    if (!isText(left) || !isText(right)) return undefined;
    return new SafeText(escapeUnlessSafe(left) + escapeUnlessSafe(right));
  }
  if (Array.isArray(left) && Array.isArray(right)) return joinLists(left, right);
  if (left instanceof Tuple && right instanceof Tuple) {
    return new Tuple(joinLists(left.items, right.items));
  }
  return undefined;
}

function joinLists(left: readonly Value[], right: readonly Value[]): readonly Value[] {
  if (left.length + right.length > maxListLen) fail("limit", "a list grew too long");
  return left.concat(right);
}

function escapeUnlessSafe(value: Value): string {
  return value instanceof SafeText ? value.text : escapeHtml(print(value));
}

export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll("'", "&#39;")
    .replaceAll('"', "&#34;");
}

function repeat(sequence: Value, times: Value): Value | undefined {
  if (typeof times !== "number" && typeof times !== "boolean") return undefined;
  const count = Math.max(0, Number(times));
  const checkLength = (length: number, limit: number) => {
    if (length * count > limit) fail("limit", "the repeated value is too large");
  };
  if (sequence instanceof SafeText) {
    checkLength(sequence.text.length, maxTextLen);
    return new SafeText(sequence.text.repeat(count));
  }
  if (typeof sequence === "string") {
    checkLength(sequence.length, maxTextLen);
    return sequence.repeat(count);
  }
  if (Array.isArray(sequence)) {
    checkLength(sequence.length, maxListLen);
    return Array.from({ length: count }, () => sequence as readonly Value[]).flat(1);
  }
  if (sequence instanceof Tuple) {
    checkLength(sequence.items.length, maxListLen);
    return new Tuple(Array.from({ length: count }, () => sequence.items).flat(1));
  }
  return undefined;
}

export function negate(value: Value): Value {
  if (value instanceof Float) return new Float(-value.value);
  const number = asNumber(value);
  if (typeof number === "number") return -number + 0;
  if (typeof number === "bigint") return narrow(-number);
  if (value instanceof Undefined) value.fail();
  throw new JinjaError("type", `bad operand type for unary -: '${typeName(value)}'`);
}

/** Unary plus. */
export function affirm(value: Value): Value {
  const number = asNumber(value);
  if (number !== undefined) return number;
  if (value instanceof Undefined) value.fail();
  throw new JinjaError("type", `bad operand type for unary +: '${typeName(value)}'`);
}

function fail(kind: "value" | "type" | "limit", message: string): never {
  throw new JinjaError(kind, message);
}
