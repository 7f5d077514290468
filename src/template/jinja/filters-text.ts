// Jinja's filters that make text.

import { truthy } from "./compare.ts";
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { parseFloatText } from "./filters-number.ts";
import { lengthOf } from "./iteration.ts";
import { dumpJson } from "./json.ts";
import { checkFieldWidth } from "./limits.ts";
import { fixed } from "./number-format.ts";
import { asNumber, escapeHtml, toDouble } from "./operators.ts";
import { formatPercent } from "./percent-format.ts";
import { expectInteger, expectText, print } from "./print.ts";
import type { Filter } from "./runtime.ts";
import { centerText, replaceText } from "./text-methods.ts";
import * as unicode from "./unicode.ts";
import { type Arguments, SafeText, Tuple, Undefined, type Value } from "./values.ts";

function change(convert: (text: string) => Value): Filter {
  return (value, args) => {
    args.bind("filter", []);
    const result = convert(print(value));
    return value instanceof SafeText && typeof result === "string" ? new SafeText(result) : result;
  };
}

function integer(value: Value | undefined, fallback: number, what: string): number {
  return value === undefined ? fallback : expectInteger(value, what);
}

function trim(value: Value, args: Arguments): Value {
  const [characters] = args.bind("trim", ["chars"]);
  const isDefault = characters === undefined || characters === null;
  const stripped = unicode.strip(
    print(value),
    isDefault ? undefined : expectText(characters, "chars"),
  );
  return value instanceof SafeText ? new SafeText(stripped) : stripped;
}

function replace(value: Value, args: Arguments): Value {
  const [old, replacement, count] = args.bind("replace", ["old", "new", "count"], 2);
  const most = count === null ? -1 : integer(count, -1, "count");
  return replaceText(print(value), print(old!), print(replacement!), most);
}

/** Words start after white space, a dash or an opening bracket. */
function titleWords(text: string): string {
  const parts = text.split(/([-\s({[<]+)/);
  return parts
    .map((part) => {
      const [first = "", ...rest] = Array.from(part);
      return first.toUpperCase() + rest.join("").toLowerCase();
    })
    .join("");
}

function center(value: Value, args: Arguments): Value {
  const [width] = args.bind("center", ["width"]);
  const text = print(value);
  const wanted = checkFieldWidth(integer(width, 80, "width"));
  const missing = wanted - unicode.textLength(text);
  return missing <= 0 ? text : centerText(text, missing, " ", wanted);
}

function indent(value: Value, args: Arguments): Value {
  const [width, first, blank] = args.bind("indent", ["width", "first", "blank"]);
  const isText = typeof width === "string";
  const margin = isText ? width : " ".repeat(Math.max(0, integer(width, 4, "width")));
  const lines = unicode.splitLines(`${expectText(value, "indent")}\n`);
  const withMargin = (line: string) =>
    line === "" && !truthy(blank ?? false) ? "" : margin + line;
  const [head = "", ...rest] = lines;
  const body = [head, ...rest.map(withMargin)].join("\n");
  return truthy(first ?? false) ? margin + body : body;
}

function truncate(value: Value, args: Arguments): Value {
  const names = ["length", "killwords", "end", "leeway"];
  const [lengthArgument, killWords, endArgument, leeway] = args.bind("truncate", names);
  const length = integer(lengthArgument, 255, "length");
  const end = endArgument === undefined ? "..." : expectText(endArgument, "end");
  const slack = leeway === null ? 5 : integer(leeway, 5, "leeway");
  const endLen = unicode.textLength(end);
  if (length < endLen) {
    throw new JinjaError("value", `expected length >= ${endLen}, got ${length}`);
  }
  if (slack < 0) throw new JinjaError("value", `expected leeway >= 0, got ${slack}`);
  const points = Array.from(expectText(value, "truncate"));
  if (points.length <= length + slack) return points.join("");
  const cut = points.slice(0, length - endLen).join("");
  if (truthy(killWords ?? false)) return cut + end;
  const space = cut.lastIndexOf(" ");
  return (space < 0 ? cut : cut.slice(0, space)) + end;
}

function format(value: Value, args: Arguments): Value {
  if (args.positional.length > 0 && args.named.size > 0) {
    const reason = "can't handle positional and keyword arguments at the same time";
    throw new JinjaError("runtime", reason);
  }
  const values = args.named.size > 0 ? Dict.of(args.named) : new Tuple(args.positional);
  return formatPercent(print(value), values);
}

function toJson(value: Value, args: Arguments): Value {
  const names = ["ensure_ascii", "indent", "separators", "sort_keys"];
  const [ensureAscii, indentArgument, separators, sortKeys] = args.bind("tojson", names);
  const level = indentArgument === undefined || indentArgument === null ? null : indentArgument;
  const indentText =
    level === null
      ? undefined
      : typeof level === "string"
        ? level
        : " ".repeat(Math.max(0, expectInteger(level, "indent")));
  const given = separators instanceof Tuple ? separators.items : separators;
  const [item, key] = Array.isArray(given) ? (given as readonly Value[]) : [undefined, undefined];
  const itemDefault = indentText === undefined ? ", " : ",";
  return dumpJson(value, {
    ensureAscii: truthy(ensureAscii ?? false),
    indent: indentText,
    itemSeparator: item === undefined ? itemDefault : expectText(item, "separator"),
    keySeparator: key === undefined ? ": " : expectText(key, "separator"),
    sortKeys: truthy(sortKeys ?? false),
  });
}

function fileSize(value: Value, args: Arguments): Value {
  const [binary] = args.bind("filesizeformat", ["binary"]);
  const isBinary = truthy(binary ?? false);
  const number = typeof value === "string" ? parseFloatText(value) : asNumber(value);
  const bytes = number === undefined ? Number.NaN : toDouble(number);
  const base = isBinary ? 1024 : 1000;
  if (Number.isNaN(bytes)) throw new JinjaError("type", "filesizeformat needs a number");
  if (bytes === 1) return "1 Byte";
  if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
  const prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
  let unit = base;
  let index = 0;
  while (bytes >= unit * base && index < prefixes.length - 1) {
    unit *= base;
    index++;
  }
  const prefix = prefixes[index]!;
  return `${fixed(bytes / unit, 1)} ${isBinary ? `${prefix.toUpperCase()}i` : prefix}B`;
}

function urlEncode(value: Value): Value {
  const quote = (text: string, keepSlash: boolean) => {
    const encoded = encodeURIComponent(text).replaceAll(
      /[!'()*]/g,
      (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`,
    );
    return keepSlash ? encoded.replaceAll("%2F", "/") : encoded.replaceAll("%20", "+");
  };
  if (!(value instanceof Dict) && !Array.isArray(value)) return quote(print(value), true);
  const pairs = value instanceof Dict ? Array.from(value.entries()) : value.map(pairOf);
  return pairs
    .map(([key, item]) => `${quote(print(key), false)}=${quote(print(item), false)}`)
    .join("&");
}

function pairOf(item: Value): readonly [Value, Value] {
  const pair = item instanceof Tuple ? item.items : item;
  if (!Array.isArray(pair) || pair.length !== 2) {
    throw new JinjaError("value", "urlencode needs pairs");
  }
  return [pair[0], pair[1]];
}

function xmlAttributes(value: Value, args: Arguments): Value {
  const [autospace] = args.bind("xmlattr", ["autospace"]);
  if (!(value instanceof Dict)) throw new JinjaError("type", "xmlattr needs a dict");
  const fields: string[] = [];
  for (const [key, item] of value.entries()) {
    if (item === null || item instanceof Undefined) continue;
    const name = expectText(key, "attribute name");
    if (/[\s/>=]/.test(name)) {
      throw new JinjaError("value", `Invalid character in attribute name: '${name}'`);
    }
    fields.push(`${escapeHtml(name)}="${escapeValue(item).text}"`);
  }
  const text = fields.join(" ");
  return text !== "" && truthy(autospace ?? true) ? ` ${text}` : text;
}

function escapeValue(value: Value): SafeText {
  return value instanceof SafeText ? value : new SafeText(escapeHtml(print(value)));
}

const htmlEntities: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00a0",
  "#39": "'",
  "#34": '"',
};

function stripTags(text: string): string {
  const bare = text.replaceAll(/<!--[\s\S]*?-->/g, "").replaceAll(/<[^>]*>/g, "");
  const spaced = unicode
    .findWords(bare)
    .map(({ word }) => word)
    .join(" ");
  return spaced.replaceAll(/&(#?\w+);/g, (all, name: string) => htmlEntities[name] ?? all);
}

export const textFilters: readonly (readonly [string, Filter])[] = [
  ["capitalize", change(unicode.capitalize)],
  ["center", center],
  ["e", (value) => escapeValue(value)],
  ["escape", (value) => escapeValue(value)],
  ["filesizeformat", fileSize],
  ["forceescape", (value) => new SafeText(escapeHtml(print(value)))],
  ["format", format],
  ["indent", indent],
  ["lower", change((text) => text.toLowerCase())],
  ["replace", replace],
  ["safe", (value) => new SafeText(print(value))],
  ["string", (value) => (value instanceof SafeText ? value : print(value))],
  ["striptags", change(stripTags)],
  ["title", change(titleWords)],
  ["tojson", toJson],
  ["trim", trim],
  ["truncate", truncate],
  ["upper", change((text) => text.toUpperCase())],
  ["urlencode", urlEncode],
  ["wordcount", change((text) => text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0)],
  ["xmlattr", xmlAttributes],
  ["length", measure],
  ["count", measure],
];

function measure(value: Value): Value {
  const length = lengthOf(value);
  if (length !== undefined) return length;
  throw new JinjaError("type", "object of this type has no len()");
}
