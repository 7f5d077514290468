// printf-style formatting: `"%s: %5.1f" % (name, value)` and the `format` filter.
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { checkFieldWidth } from "./limits.ts";
import { checkPrecision, fixed, general, scientific } from "./number-format.ts";
import { expectInteger, print, represent, typeName } from "./print.ts";
import { Float, Tuple, Undefined, type Value } from "./values.ts";

const fieldPattern = /%(?:\(([^)]*)\))?([-+ #0]*)(\*|\d+)?(?:\.(\*|\d*))?[hlL]?(.)?/gsu;

interface Field {
  flags: string;
  width: number;
  precision: number | undefined;
  type: string;
}

export function formatPercent(format: string, values: Value): string {
  const items = values instanceof Tuple ? values.items : [values];
  let nextIndex = 0;
  const next = (): Value => {
    const item = items[nextIndex++];
    if (item === undefined) throw new JinjaError("type", "not enough arguments for format string");
    return item;
  };
  const number = (text: string | undefined): number | undefined => {
    if (text === undefined) return undefined;
    return text === "*" ? expectInteger(next(), "* in the format") : Number(text);
  };
  const result = format.replaceAll(
    fieldPattern,
    (
      _all: string,
      key: string | undefined,
      flags: string,
      widthText: string | undefined,
      precisionText: string | undefined,
      type: string | undefined,
    ) => {
      if (type === undefined) throw new JinjaError("value", "incomplete format");
      if (type === "%") return "%";
      let value: Value | undefined;
      if (key !== undefined) {
        if (!(values instanceof Dict)) throw new JinjaError("type", "format requires a mapping");
        value = values.get(key);
        if (value === undefined) throw new JinjaError("value", represent(key));
      }
      const width = number(widthText) ?? 0;
      const precision = number(precisionText);
      checkFieldWidth(width);
      return formatField(value === undefined ? next() : value, { flags, width, precision, type });
    },
  );
  // Python excuses left-over values of whatever could be a mapping, lists included.
  const isMapping = values instanceof Dict || values instanceof Undefined || Array.isArray(values);
  if (nextIndex < items.length && !isMapping) {
    throw new JinjaError("type", "not all arguments converted during string formatting");
  }
  return result;
}

function formatField(value: Value, field: Field): string {
  const { flags, type } = field;
  if (type === "s" || type === "r" || type === "a") {
    const text = type === "s" ? print(value) : represent(value);
    return pad("", cut(text, field.precision), field, false);
  }
  if (type === "c") {
    const code = typeof value === "number" ? String.fromCodePoint(value) : print(value);
    return pad("", code, field, false);
  }
  const signed = numberText(value, field);
  const isNegative = signed.startsWith("-");
  const sign = isNegative ? "-" : flags.includes("+") ? "+" : flags.includes(" ") ? " " : "";
  const radix = flags.includes("#") && /[oxX]/.test(type) ? `0${type}` : "";
  return pad(sign + radix, isNegative ? signed.slice(1) : signed, field, true);
}

function cut(text: string, precision: number | undefined): string {
  return precision === undefined ? text : Array.from(text).slice(0, precision).join("");
}

function pad(prefix: string, body: string, field: Field, isNumber: boolean): string {
  const missing = Math.max(0, field.width - prefix.length - Array.from(body).length);
  if (field.flags.includes("-")) return prefix + body + " ".repeat(missing);
  if (isNumber && field.flags.includes("0")) return prefix + "0".repeat(missing) + body;
  return " ".repeat(missing) + prefix + body;
}

function numberText(value: Value, field: Field): string {
  const number = typeof value === "boolean" ? Number(value) : value;
  const isFloat = number instanceof Float;
  if (!isFloat && typeof number !== "number" && typeof number !== "bigint") {
    const found = typeName(value);
    throw new JinjaError("type", `%${field.type} format: a number is required, not ${found}`);
  }
  const double = isFloat ? number.value : Number(number);
  const precision = checkPrecision(field.precision ?? 6);
  switch (field.type) {
    case "d":
    case "i":
    case "u": {
      const whole = isFloat ? BigInt(Math.trunc(double)) : BigInt(number);
      const digits = (whole < 0n ? -whole : whole)
        .toString()
        .padStart(checkFieldWidth(field.precision ?? 0), "0");
      return (whole < 0n ? "-" : "") + digits;
    }
    case "o":
      return integerText(number, field.type, 8);
    case "x":
      return integerText(number, field.type, 16);
    case "X":
      return integerText(number, field.type, 16).toUpperCase();
    case "f":
    case "F":
      return fixed(double, precision);
    case "e":
      return scientific(double, precision);
    case "E":
      return scientific(double, precision).toUpperCase();
    case "g":
      return general(double, precision, field.flags.includes("#"));
    case "G":
      return general(double, precision, field.flags.includes("#")).toUpperCase();
    default:
      throw new JinjaError("value", `unsupported format character '${field.type}'`);
  }
}

function integerText(value: number | bigint | Float, type: string, radix: number): string {
  if (value instanceof Float) {
    throw new JinjaError("type", `%${type} format: an integer is required, not float`);
  }
  return value.toString(radix);
}
