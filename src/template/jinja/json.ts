// The `tojson` filter as Hugging Face defines it: `json.dumps` with non-ASCII text kept.
import { compare } from "./compare.ts";
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { checkTextLen } from "./limits.ts";
import { printFloat, typeName } from "./print.ts";
import { Float, SafeText, Tuple, type Value } from "./values.ts";

export interface JsonOptions {
  ensureAscii: boolean;
  /** Text of one level, or undefined for a single line. */
  indent: string | undefined;
  itemSeparator: string;
  keySeparator: string;
  sortKeys: boolean;
}

export function dumpJson(value: Value, options: JsonOptions, margin = "\n"): string {
  if (value === null) return "null";
  if (typeof value === "boolean" || typeof value === "number" || typeof value === "bigint") {
    return String(value);
  }
  if (typeof value === "string") return dumpText(value, options);
  if (value instanceof SafeText) return dumpText(value.text, options);
  if (value instanceof Float) return dumpFloat(value.value);
  const inner = options.indent === undefined ? margin : margin + options.indent;
  if (value instanceof Dict) {
    const entries = Array.from(value.entries());
    if (options.sortKeys) entries.sort(([a], [b]) => compare(a, b));
    const fields = entries.map(
      ([key, item]) =>
        dumpText(keyText(key), options) + options.keySeparator + dumpJson(item, options, inner),
    );
    return wrap("{", fields, "}", options, margin);
  }
  const items = value instanceof Tuple ? value.items : value;
  if (Array.isArray(items)) {
    const fields = items.map((item: Value) => dumpJson(item, options, inner));
    return wrap("[", fields, "]", options, margin);
  }
  throw new JinjaError("type", `Object of type ${typeName(value)} is not JSON serializable`);
}

function wrap(
  open: string,
  fields: readonly string[],
  close: string,
  options: JsonOptions,
  margin: string,
): string {
  if (fields.length === 0) return open + close;
  if (options.indent === undefined) {
    return checkTextLen(open + fields.join(options.itemSeparator) + close);
  }
  const inner = margin + options.indent;
  return checkTextLen(open + inner + fields.join(options.itemSeparator + inner) + margin + close);
}

function dumpText(text: string, options: JsonOptions): string {
  const quoted = JSON.stringify(text);
  if (!options.ensureAscii) return quoted;
  const escapeUnit = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return quoted.replaceAll(/[\x7f-\uffff]/g, escapeUnit);
}

function dumpFloat(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "Infinity" : "-Infinity";
  return printFloat(value);
}

function keyText(key: Value): string {
  if (typeof key === "string") return key;
  if (key instanceof SafeText) return key.text;
  if (key === null) return "null";
  if (typeof key === "boolean" || typeof key === "number" || typeof key === "bigint") {
    return String(key);
  }
  if (key instanceof Float) return dumpFloat(key.value);
  const found = typeName(key);
  throw new JinjaError("type", `keys must be str, int, float, bool or None, not ${found}`);
}
