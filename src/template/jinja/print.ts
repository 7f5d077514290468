// `str()` and `repr()` as Python prints them.
import { JinjaError } from "./errors.ts";
import { checkTextLen, maxIntegerDigits } from "./limits.ts";
import { Float, PythonObject, SafeText, Undefined, type Value } from "./values.ts";

/** `str(value)`: what `{{ value }}` prints. */
export function print(value: Value): string {
  if (typeof value === "string") return value;
  if (value instanceof Undefined) return "";
  if (value instanceof SafeText) return value.text;
  return represent(value);
}

/** `repr(value)`: how a value prints inside a list or a dict. */
export function represent(value: Value): string {
  if (typeof value === "string") return quote(value);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "bigint") return printLargeInteger(value);
  if (value instanceof Float) return printFloat(value.value);
  if (value instanceof SafeText) return `Markup(${quote(value.text)})`;
  // Lists that hold one another many times print exponentially long.
  if (value instanceof PythonObject) return checkTextLen(value.represent(represent));
  return checkTextLen(`[${value.map(represent).join(", ")}]`);
}

function printLargeInteger(value: bigint): string {
  const digits = String(value);
  if (digits.length > maxIntegerDigits) {
    const limit = `the limit (${maxIntegerDigits} digits) for integer string conversion`;
    throw new JinjaError("value", `Exceeds ${limit}`);
  }
  return digits;
}

/** The shortest decimal text that reads back as `value`, in Python's choice of notation. */
export function printFloat(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0.0";
  const [digits = "", exponentText = "0"] = value.toExponential().split("e");
  const exponent = Number(exponentText);
  // Python changes to scientific notation below 1e-4 and from 1e16 on.
  if (value !== 0 && (exponent < -4 || exponent >= 16)) {
    const sign = exponent < 0 ? "-" : "+";
    return `${digits}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const text = String(value);
  return text.includes(".") ? text : `${text}.0`;
}

const namedEscapes: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

/** What `repr` of a string escapes: control, format, unassigned and non-ASCII space characters. */
const unprintable = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  let quoted = "";
  for (const character of text) {
    const named = namedEscapes[character];
    if (named !== undefined) quoted += named;
    else if (character === mark) quoted += `\\${mark}`;
    else if (unprintable.test(character)) quoted += escapeCode(character.codePointAt(0) ?? 0);
    else quoted += character;
  }
  return mark + quoted + mark;
}

function escapeCode(code: number): string {
  const hex = code.toString(16);
  if (code <= 0xff) return `\\x${hex.padStart(2, "0")}`;
  return code <= 0xffff ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

/** Python's name of a value's type, for messages. */
export function typeName(value: Value): string {
  if (value === null) return "NoneType";
  if (typeof value === "string") return "str";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number" || typeof value === "bigint") return "int";
  return value instanceof PythonObject ? value.typeName : "list";
}

/** `text` where a filter or method needs a string: plain text of a str or of safe text. */
export function expectText(value: Value | undefined, what: string): string {
  if (typeof value === "string") return value;
  if (value instanceof SafeText) return value.text;
  if (value instanceof Undefined) value.fail();
  const found = value === undefined ? "nothing" : typeName(value);
  throw new JinjaError("type", `${what} must be str, not ${found}`);
}

/** A small int where a filter or method needs one. */
export function expectInteger(value: Value | undefined, what: string): number {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return Number(value);
  if (value instanceof Undefined) value.fail();
  const found = value === undefined ? "nothing" : typeName(value);
  throw new JinjaError("type", `${what} must be int, not ${found}`);
}
