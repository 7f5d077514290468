// `str.format`: replacement fields, conversions and the format specification mini-language.
import { JinjaError } from "./errors.ts";
import { checkFieldWidth } from "./limits.ts";
import { checkPrecision, fixed, general, group, scientific } from "./number-format.ts";
import { print, printFloat, represent, typeName } from "./print.ts";
import { textLength } from "./unicode.ts";
import { type Arguments, Float, type Value } from "./values.ts";

/** Attributes and items of values, given by the caller: they lead back to text methods. */
export interface FieldAccess {
  getAttribute(value: Value, name: string): Value;
  getItem(value: Value, key: Value): Value;
}

interface FieldState {
  readonly access: FieldAccess;
  /** Next automatic argument number; -1 once fields are numbered by hand. */
  nextIndex: number;
}

export function formatText(format: string, args: Arguments, access: FieldAccess): string {
  return expandFields(format, args, { access, nextIndex: 0 }, 2);
}

function expandFields(format: string, args: Arguments, state: FieldState, depth: number): string {
  if (depth < 0) throw new JinjaError("value", "Max string recursion exceeded");
  let result = "";
  let position = 0;
  while (position < format.length) {
    const character = format[position]!;
    const doubled = format[position + 1] === character;
    if ((character === "{" || character === "}") && doubled) {
      result += character;
      position += 2;
    } else if (character === "}") {
      throw new JinjaError("value", "Single '}' encountered in format string");
    } else if (character === "{") {
      const end = endOfField(format, position);
      result += expandField(format.slice(position + 1, end), args, state, depth);
      position = end + 1;
    } else {
      result += character;
      position++;
    }
  }
  return result;
}

function endOfField(format: string, start: number): number {
  let depth = 0;
  for (let index = start; index < format.length; index++) {
    if (format[index] === "{") depth++;
    else if (format[index] === "}" && --depth === 0) return index;
  }
  throw new JinjaError("value", "expected '}' before end of string");
}

function expandField(field: string, args: Arguments, state: FieldState, depth: number): string {
  const match = /^([^!:]*)(?:!([^:]*))?(?::([\s\S]*))?$/.exec(field);
  if (match === null) throw new JinjaError("value", `invalid format field '${field}'`);
  const [, name = "", conversion, spec = ""] = match;
  let value = lookUp(name, args, state);
  if (conversion === "r") value = represent(value);
  else if (conversion === "a") value = toAscii(represent(value));
  else if (conversion === "s") value = print(value);
  else if (conversion !== undefined) {
    throw new JinjaError("value", `Unknown conversion specifier '${conversion}'`);
  }
  return formatValue(value, expandFields(spec, args, state, depth - 1));
}

function toAscii(text: string): string {
  return text.replaceAll(/[^\0-\x7f]/gu, (character) => {
    const code = character.codePointAt(0)!;
    const hex = code.toString(16);
    if (code <= 0xff) return `\\x${hex}`;
    return code <= 0xffff ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
  });
}

/** `name.attribute[item]…`; an empty or numeric name is a positional argument. */
function lookUp(path: string, args: Arguments, state: FieldState): Value {
  const name = /^[^.[]*/.exec(path)![0];
  let value: Value | undefined;
  if (name === "" || /^\d+$/.test(name)) {
    value = args.positional[argumentIndex(name, state)];
    if (value === undefined) throw new JinjaError("value", "Replacement index out of range");
  } else {
    value = args.named.get(name);
    if (value === undefined) throw new JinjaError("value", `'${name}'`);
  }
  let rest = path.slice(name.length);
  while (rest !== "") {
    const step = /^(?:\.([^.[]+)|\[([^\]]+)\])/.exec(rest);
    if (step === null) throw new JinjaError("value", "Empty attribute in format string");
    const [matched, attribute, key = ""] = step;
    value =
      attribute === undefined
        ? state.access.getItem(value, /^\d+$/.test(key) ? Number(key) : key)
        : state.access.getAttribute(value, attribute);
    rest = rest.slice(matched.length);
  }
  return value;
}

function argumentIndex(name: string, state: FieldState): number {
  const isAutomatic = name === "";
  if (isAutomatic ? state.nextIndex < 0 : state.nextIndex > 0) {
    throw new JinjaError("value", "cannot mix manual and automatic field numbering");
  }
  if (isAutomatic) return state.nextIndex++;
  state.nextIndex = -1;
  return Number(name);
}

interface FormatSpec {
  fill: string;
  align: string;
  sign: string;
  alternate: boolean;
  width: number;
  grouping: string;
  precision: number | undefined;
  type: string;
}

const specPattern =
  /^(?:(.)?([<>=^]))?([ +-]?)(z?)(#?)(0?)(\d*)([,_]?)(?:\.(\d+))?([bcdeEfFgGnosxX%]?)$/su;

function parseSpec(spec: string): FormatSpec {
  const match = specPattern.exec(spec);
  if (match === null) throw new JinjaError("value", `Invalid format specifier '${spec}'`);
  const [, fill, align, sign = "", , alternate, zero, width, grouping = "", precision] = match;
  const parsed: FormatSpec = {
    fill: fill ?? (zero === "0" ? "0" : " "),
    align: align ?? (zero === "0" ? "=" : ""),
    sign,
    alternate: alternate === "#",
    width: Number(width),
    grouping,
    precision: precision === undefined ? undefined : Number(precision),
    type: match[10] ?? "",
  };
  checkFieldWidth(parsed.width);
  return parsed;
}

/** `format(value, spec)`. */
function formatValue(value: Value, specText: string): string {
  if (specText === "") return print(value);
  if (typeof value === "string") return formatString(value, parseSpec(specText));
  if (value instanceof Float) return formatNumber(value.value, parseSpec(specText), true);
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") {
    return formatNumber(typeof value === "boolean" ? Number(value) : value, parseSpec(specText));
  }
  const found = typeName(value);
  throw new JinjaError("type", `unsupported format string passed to ${found}.__format__`);
}

function formatString(text: string, spec: FormatSpec): string {
  if (spec.type !== "" && spec.type !== "s") {
    throw new JinjaError("value", `Unknown format code '${spec.type}' for object of type 'str'`);
  }
  if (spec.align === "=" && spec.fill !== "0") {
    throw new JinjaError("value", "'=' alignment not allowed in string format specifier");
  }
  const points = Array.from(text);
  const cut = spec.precision === undefined ? text : points.slice(0, spec.precision).join("");
  return align(cut, spec, spec.align === "=" ? "<" : spec.align || "<");
}

function align(text: string, spec: FormatSpec, side: string): string {
  const missing = Math.max(0, spec.width - textLength(text));
  if (side === "<") return text + spec.fill.repeat(missing);
  if (side !== "^") return spec.fill.repeat(missing) + text;
  const left = Math.floor(missing / 2);
  return spec.fill.repeat(left) + text + spec.fill.repeat(missing - left);
}

function formatNumber(value: number | bigint, spec: FormatSpec, isFloat = false): string {
  if (spec.type === "c") return align(String.fromCodePoint(Number(value)), spec, spec.align || "<");
  const isNegative = value < 0 || Object.is(value, -0);
  const digits = numberDigits(value, spec, isFloat).replace(/^-/, "");
  const sign = isNegative ? "-" : spec.sign === "+" || spec.sign === " " ? spec.sign : "";
  const prefix = spec.alternate && /[box]/i.test(spec.type) ? `0${spec.type}` : "";
  const groupSize = /[box]/i.test(spec.type) ? 4 : 3;
  const grouped = spec.grouping === "" ? digits : group(digits, spec.grouping, groupSize);
  if (spec.align !== "=") return align(sign + prefix + grouped, spec, spec.align || ">");
  // Zeros go between the sign and the digits, and are grouped with them.
  let padded = grouped;
  let raw = digits;
  const width = spec.width - sign.length - prefix.length;
  while (padded.length < width) {
    raw = spec.fill === "0" ? `0${raw}` : raw;
    const next = spec.fill === "0" && spec.grouping ? group(raw, spec.grouping, groupSize) : null;
    padded = next ?? spec.fill + padded;
  }
  return sign + prefix + padded;
}

function numberDigits(value: number | bigint, spec: FormatSpec, isFloat: boolean): string {
  const number = Number(value);
  const precision = checkPrecision(spec.precision ?? 6);
  switch (spec.type) {
    case "f":
      return fixed(number, precision);
    case "F":
      return fixed(number, precision).toUpperCase();
    case "e":
      return scientific(number, precision);
    case "E":
      return scientific(number, precision).toUpperCase();
    case "g":
      return general(number, precision, spec.alternate);
    case "G":
      return general(number, precision, spec.alternate).toUpperCase();
    case "%":
      return `${fixed(number * 100, precision)}%`;
    default:
      break;
  }
  if (isFloat) return floatDigits(number, spec);
  if (spec.precision !== undefined) {
    throw new JinjaError("value", "Precision not allowed in integer format specifier");
  }
  const radix = { b: 2, o: 8, x: 16, X: 16 }[spec.type];
  if (radix === undefined && !["", "d", "n"].includes(spec.type)) {
    throw new JinjaError("value", `Unknown format code '${spec.type}' for object of type 'int'`);
  }
  const digits = value.toString(radix ?? 10);
  return spec.type === "X" ? digits.toUpperCase() : digits;
}

function floatDigits(value: number, spec: FormatSpec): string {
  if (spec.type !== "" && spec.type !== "n") {
    throw new JinjaError("value", `Unknown format code '${spec.type}' for object of type 'float'`);
  }
  if (spec.type === "n") return general(value, checkPrecision(spec.precision ?? 6), spec.alternate);
  if (spec.precision === undefined) return printFloat(value);
  const text = general(value, checkPrecision(spec.precision), false);
  return /[.en]/.test(text) ? text : `${text}.0`;
}
