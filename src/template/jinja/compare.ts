// Truth, equality, order and membership with Python's rules.
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { asNumber, toDouble } from "./operators.ts";
import { typeName } from "./print.ts";
import {
  DictView,
  Float,
  PythonObject,
  Range,
  SafeText,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

export function truthy(value: Value): boolean {
  if (value instanceof PythonObject) return value.truthy();
  return Array.isArray(value) ? value.length > 0 : Boolean(value);
}

export function equal(left: Value, right: Value): boolean {
  if (left === right) return true;
  const a = asNumber(left);
  const b = asNumber(right);
  if (a !== undefined && b !== undefined) return sameNumber(a, b);
  if (left instanceof SafeText) return equal(left.text, right);
  if (right instanceof SafeText) return equal(left, right.text);
  if (Array.isArray(left) && Array.isArray(right)) return equalItems(left, right);
  if (left instanceof Tuple && right instanceof Tuple) return equalItems(left.items, right.items);
  if (left instanceof Undefined && right instanceof Undefined) return true;
  if (left instanceof Dict && right instanceof Dict) return equalDicts(left, right);
  if (left instanceof Range && right instanceof Range) {
    return equalItems(left.items(), right.items());
  }
  if (left instanceof DictView && right instanceof DictView) return equalViews(left, right);
  return false;
}

function sameNumber(a: number | bigint | Float, b: number | bigint | Float): boolean {
  // biome-ignore lint/suspicious/noDoubleEquals: compares number with bigint by value
  return (a instanceof Float ? a.value : a) == (b instanceof Float ? b.value : b);
}

function equalItems(left: readonly Value[], right: readonly Value[]): boolean {
  return left.length === right.length && left.every((item, index) => equal(item, right[index]!));
}

function equalDicts(left: Dict, right: Dict): boolean {
  if (left.size !== right.size) return false;
  for (const [key, value] of left.entries()) {
    const other = right.get(key);
    if (other === undefined || !equal(value, other)) return false;
  }
  return true;
}

/** Keys and items compare as sets; `values()` is only ever equal to itself. */
function equalViews(left: DictView, right: DictView): boolean {
  if (left.typeName === "dict_values" || left.typeName !== right.typeName) return false;
  if (left.items.length !== right.items.length) return false;
  return left.items.every((item) => right.items.some((other) => equal(item, other)));
}

/** Negative, zero or positive; raises where Python cannot order the two. */
export function compare(left: Value, right: Value, operator = "<"): number {
  const a = asNumber(left);
  const b = asNumber(right);
  if (a !== undefined && b !== undefined) {
    const x = a instanceof Float ? a.value : a;
    const y = b instanceof Float ? b.value : b;
    if (Number.isNaN(toDouble(a)) || Number.isNaN(toDouble(b))) return Number.NaN;
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const leftText = left instanceof SafeText ? left.text : left;
  const rightText = right instanceof SafeText ? right.text : right;
  if (typeof leftText === "string" && typeof rightText === "string") {
    return compareText(leftText, rightText);
  }
  if (Array.isArray(left) && Array.isArray(right)) return compareItems(left, right, operator);
  if (left instanceof Tuple && right instanceof Tuple) {
    return compareItems(left.items, right.items, operator);
  }
  if (left instanceof Undefined) left.fail();
  if (right instanceof Undefined) right.fail();
  const sides = `'${typeName(left)}' and '${typeName(right)}'`;
  throw new JinjaError("type", `'${operator}' not supported between instances of ${sides}`);
}

/** By code point, where JavaScript's `<` goes by UTF-16 unit. */
function compareText(left: string, right: string): number {
  if (left === right) return 0;
  const end = Math.min(left.length, right.length);
  let index = 0;
  while (index < end && left[index] === right[index]) index++;
  if (index === end) return left.length - right.length;
  const isTail = (unit: number) => unit >= 0xdc00 && unit <= 0xdfff;
  if (index > 0 && (isTail(left.charCodeAt(index)) || isTail(right.charCodeAt(index)))) index--;
  return left.codePointAt(index)! - right.codePointAt(index)!;
}

function compareItems(left: readonly Value[], right: readonly Value[], operator: string): number {
  const end = Math.min(left.length, right.length);
  for (let index = 0; index < end; index++) {
    const a = left[index]!;
    const b = right[index]!;
    if (!equal(a, b)) return compare(a, b, operator);
  }
  return left.length - right.length;
}

/** `item in container`. */
export function contains(container: Value, item: Value): boolean {
  const text = container instanceof SafeText ? container.text : container;
  if (typeof text === "string") {
    const needle = item instanceof SafeText ? item.text : item;
    if (typeof needle === "string") return text.includes(needle);
    if (needle instanceof Undefined) needle.fail();
    const found = typeName(needle);
    throw new JinjaError("type", `'in <string>' requires string as left operand, not ${found}`);
  }
  if (container instanceof Dict) return container.has(item);
  const iterator = Array.isArray(text)
    ? text.values()
    : text instanceof PythonObject
      ? text.iterate()
      : undefined;
  if (iterator === undefined) {
    throw new JinjaError("type", `argument of type '${typeName(container)}' is not iterable`);
  }
  for (let step = iterator.next(); !step.done; step = iterator.next()) {
    if (equal(step.value, item)) return true;
  }
  return false;
}
