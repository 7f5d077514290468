// The methods of Python's str.

import { JinjaError } from "./errors.ts";
import { type FieldAccess, formatText } from "./format-spec.ts";
import { iterate } from "./iteration.ts";
import { checkFieldWidth } from "./limits.ts";
import { expectInteger, expectText, typeName } from "./print.ts";
import { testCharacters } from "./text-tests.ts";
import * as unicode from "./unicode.ts";
import { type Arguments, Callable, SafeText, Tuple, type Value } from "./values.ts";

type TextMethod = (text: string, args: Arguments, name: string, access: FieldAccess) => Value;

export function textMethod(text: string, name: string, access: FieldAccess): Callable | undefined {
  const method = methods.get(name);
  if (method !== undefined) return new Callable(name, (args) => method(text, args, name, access));
  const test = testCharacters(text, name);
  if (test === undefined) return undefined;
  return new Callable(name, (args) => {
    args.bind(name, []);
    return test;
  });
}

/** An argument that may be left out or None. */
function optionalText(value: Value | undefined, what: string): string | undefined {
  return value === undefined || value === null ? undefined : expectText(value, what);
}

function unary(change: (text: string) => Value): TextMethod {
  return (text, args, name) => {
    args.bind(name, []);
    return change(text);
  };
}

function stripping(change: (text: string, characters?: string) => string): TextMethod {
  return (text, args, name) => {
    const [characters] = args.bind(name, ["chars"]);
    return change(text, optionalText(characters, `${name} arg`));
  };
}

/** `start` and `end` count code points, as in a slice. */
function between(
  text: string,
  start: Value | undefined,
  end: Value | undefined,
): { from: number; to: number } {
  const length = unicode.textLength(text);
  const resolve = (bound: Value | undefined, fallback: number) => {
    if (bound === undefined || bound === null) return fallback;
    const index = expectInteger(bound, "slice index");
    return Math.min(Math.max(index < 0 ? index + length : index, 0), length);
  };
  // A start beyond the end matches nothing, not even the empty string.
  const beyond = typeof start === "number" && start > length;
  const from = resolve(start, 0);
  return { from: beyond ? length + 1 : from, to: resolve(end, length) };
}

function affix(matches: (text: string, part: string) => boolean): TextMethod {
  return (text, args, name) => {
    const [wanted, start, end] = args.bind(name, ["prefix", "start", "end"], 1);
    const { from, to } = between(text, start, end);
    if (from > to) return false;
    const part = text.slice(unicode.unitIndex(text, from), unicode.unitIndex(text, to));
    if (wanted instanceof Tuple) {
      return wanted.items.some((item) => matches(part, expectText(item, `${name} tuple item`)));
    }
    return matches(part, expectText(wanted, `${name} first arg`));
  };
}

function finding(isLast: boolean, failure: string | undefined): TextMethod {
  return (text, args, name) => {
    const [wanted, start, end] = args.bind(name, ["sub", "start", "end"], 1);
    const needle = expectText(wanted, `${name} argument`);
    const { from, to } = between(text, start, end);
    const offset = unicode.unitIndex(text, from);
    const part = text.slice(offset, unicode.unitIndex(text, to));
    const found = from > to ? -1 : isLast ? part.lastIndexOf(needle) : part.indexOf(needle);
    if (found < 0 && failure !== undefined) throw new JinjaError("value", failure);
    return found < 0 ? -1 : unicode.pointIndex(text, offset + found);
  };
}

function splitText(text: string, args: Arguments, name: string): Value {
  const [separator, limit] = args.bind(name, ["sep", "maxsplit"]);
  const most = limit === undefined ? -1 : expectInteger(limit, "maxsplit");
  const mark = optionalText(separator, "separator");
  if (mark === undefined) return splitWords(text, most, name === "rsplit");
  if (mark === "") throw new JinjaError("value", "empty separator");
  const parts = text.split(mark);
  if (most < 0 || parts.length <= most + 1) return parts;
  if (name === "split") return [...parts.slice(0, most), parts.slice(most).join(mark)];
  const kept = parts.length - most;
  return [parts.slice(0, kept).join(mark), ...parts.slice(kept)];
}

function splitWords(text: string, most: number, fromEnd: boolean): string[] {
  const words = unicode.findWords(text);
  if (most < 0 || words.length <= most) return words.map(({ word }) => word);
  if (!fromEnd) {
    const rest = unicode.stripStart(text.slice(words[most]!.start));
    return [...words.slice(0, most).map(({ word }) => word), rest];
  }
  const kept = words.length - most;
  const last = words[kept - 1]!;
  const rest = text.slice(0, last.start + last.word.length);
  return [unicode.stripEnd(rest), ...words.slice(kept).map(({ word }) => word)];
}

function partition(text: string, args: Arguments, name: string): Value {
  const [wanted] = args.bind(name, ["sep"], 1);
  const separator = expectText(wanted, "separator");
  if (separator === "") throw new JinjaError("value", "empty separator");
  const isLast = name === "rpartition";
  const index = isLast ? text.lastIndexOf(separator) : text.indexOf(separator);
  if (index < 0) return new Tuple(isLast ? ["", "", text] : [text, "", ""]);
  return new Tuple([text.slice(0, index), separator, text.slice(index + separator.length)]);
}

/** `str.replace`; an empty `old` matches around every character. */
export function replaceText(text: string, old: string, replacement: string, count: number): string {
  if (count < 0) count = Number.POSITIVE_INFINITY;
  const parts = old === "" ? ["", ...Array.from(text), ""] : text.split(old);
  let result = parts[0]!;
  for (let index = 1; index < parts.length; index++) {
    result += (index <= count ? replacement : old) + parts[index]!;
  }
  return result;
}

function replace(text: string, args: Arguments, name: string): Value {
  const [old, replacement, count] = args.bind(name, ["old", "new", "count"], 2);
  return replaceText(
    text,
    expectText(old, "replace() argument 1"),
    expectText(replacement, "replace() argument 2"),
    count === undefined ? -1 : expectInteger(count, "count"),
  );
}

function padding(pad: (text: string, missing: number, fill: string, width: number) => string) {
  return (text: string, args: Arguments, name: string): Value => {
    const [width, fill] = args.bind(name, ["width", "fillchar"], 1);
    const wanted = checkFieldWidth(expectInteger(width, "width"));
    const filler = fill === undefined ? " " : expectText(fill, "fill character");
    if (unicode.textLength(filler) !== 1) {
      throw new JinjaError("type", "The fill character must be exactly one character long");
    }
    const missing = wanted - unicode.textLength(text);
    return missing <= 0 ? text : pad(text, missing, filler, wanted);
  };
}

/** Python puts the odd space on the left only where the width is odd too. */
export function centerText(text: string, missing: number, fill: string, width: number): string {
  const left = Math.floor(missing / 2) + (missing & width & 1);
  return fill.repeat(left) + text + fill.repeat(missing - left);
}

function join(text: string, args: Arguments, name: string): Value {
  const [items] = args.bind(name, ["iterable"], 1);
  const iterator = iterate(items!);
  const parts: string[] = [];
  for (let step = iterator.next(); !step.done; step = iterator.next()) {
    const item = step.value;
    if (typeof item !== "string" && !(item instanceof SafeText)) {
      const found = typeName(item);
      const which = `sequence item ${parts.length}`;
      throw new JinjaError("type", `${which}: expected str instance, ${found} found`);
    }
    parts.push(expectText(item, "item"));
  }
  return parts.join(text);
}

function expandTabs(text: string, args: Arguments, name: string): Value {
  const [size] = args.bind(name, ["tabsize"]);
  const width = size === undefined ? 8 : expectInteger(size, "tabsize");
  let column = 0;
  let result = "";
  for (const character of text) {
    if (character === "\t") {
      const missing = width > 0 ? width - (column % width) : 0;
      result += " ".repeat(missing);
      column += missing;
    } else {
      result += character;
      column = character === "\n" || character === "\r" ? 0 : column + 1;
    }
  }
  return result;
}

function zeroFill(text: string, args: Arguments, name: string): Value {
  const [width] = args.bind(name, ["width"], 1);
  const missing = checkFieldWidth(expectInteger(width, "width")) - unicode.textLength(text);
  if (missing <= 0) return text;
  const signed = text.startsWith("-") || text.startsWith("+");
  const digits = signed ? text.slice(1) : text;
  return (signed ? text[0] : "") + "0".repeat(missing) + digits;
}

function swapCase(text: string): string {
  return Array.from(text, (character) => {
    const upper = character.toUpperCase();
    return character === upper ? character.toLowerCase() : upper;
  }).join("");
}

function removing(isSuffix: boolean): TextMethod {
  return (text, args, name) => {
    const [wanted] = args.bind(name, ["affix"], 1);
    const part = expectText(wanted, `${name}() argument`);
    if (part === "") return text;
    if (isSuffix) return text.endsWith(part) ? text.slice(0, -part.length) : text;
    return text.startsWith(part) ? text.slice(part.length) : text;
  };
}

function countText(text: string, args: Arguments, name: string): Value {
  const [wanted, start, end] = args.bind(name, ["sub", "start", "end"], 1);
  const needle = expectText(wanted, "count() argument");
  const { from, to } = between(text, start, end);
  if (from > to) return 0;
  if (needle === "") return to - from + 1;
  const part = text.slice(unicode.unitIndex(text, from), unicode.unitIndex(text, to));
  return part.split(needle).length - 1;
}

const methods: ReadonlyMap<string, TextMethod> = new Map<string, TextMethod>([
  ["capitalize", unary(unicode.capitalize)],
  ["casefold", unary((text) => text.replaceAll("ß", "ss").toLowerCase())],
  ["center", padding(centerText)],
  ["count", countText],
  ["endswith", affix((text, part) => text.endsWith(part))],
  ["expandtabs", expandTabs],
  ["find", finding(false, undefined)],
  ["format", (text, args, _name, access) => formatText(text, args, access)],
  ["index", finding(false, "substring not found")],
  ["join", join],
  ["ljust", padding((text, missing, fill) => text + fill.repeat(missing))],
  ["lower", unary((text) => text.toLowerCase())],
  ["lstrip", stripping(unicode.stripStart)],
  ["partition", partition],
  ["removeprefix", removing(false)],
  ["removesuffix", removing(true)],
  ["replace", replace],
  ["rfind", finding(true, undefined)],
  ["rindex", finding(true, "substring not found")],
  ["rjust", padding((text, missing, fill) => fill.repeat(missing) + text)],
  ["rpartition", partition],
  ["rsplit", splitText],
  ["rstrip", stripping(unicode.stripEnd)],
  ["split", splitText],
  [
    "splitlines",
    (text, args, name) => {
      const [keepEnds] = args.bind(name, ["keepends"]);
      return unicode.splitLines(text, Boolean(keepEnds));
    },
  ],
  ["startswith", affix((text, part) => text.startsWith(part))],
  ["strip", stripping(unicode.strip)],
  ["swapcase", unary(swapCase)],
  ["title", unary(unicode.title)],
  ["upper", unary((text) => text.toUpperCase())],
  ["zfill", zeroFill],
]);
