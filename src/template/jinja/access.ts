// Attributes, items and slices, with the sandbox's limits: nothing that
// starts with an underscore, nothing that changes a list or a dict.
import { containerMethod } from "./container-methods.ts";
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import type { FieldAccess } from "./format-spec.ts";
import { sequenceItems } from "./iteration.ts";
import { asNumber } from "./operators.ts";
import { expectInteger, represent, typeName } from "./print.ts";
import { textMethod } from "./text-methods.ts";
import { characters } from "./unicode.ts";
import { Callable, PythonObject, Range, SafeText, Tuple, Undefined, type Value } from "./values.ts";

const dictMutators = new Set(["clear", "pop", "popitem", "setdefault", "update"]);
const listMutators = new Set([
  "append",
  "clear",
  "extend",
  "insert",
  "pop",
  "remove",
  "reverse",
  "sort",
]);

/** How format strings reach into their arguments. */
const access: FieldAccess = { getAttribute, getItem };

/** `value.name`: the attribute first, then the item. */
export function getAttribute(value: Value, name: string): Value {
  if (value instanceof Undefined) value.fail();
  const attribute = ownAttribute(value, name);
  const found = attribute === undefined ? itemOrUndefined(value, name) : attribute;
  return found === undefined ? missing(value, name) : found;
}

/** `value[key]`: the item first, then the attribute. */
export function getItem(value: Value, key: Value): Value {
  if (value instanceof Undefined) value.fail();
  const item = itemOrUndefined(value, key);
  if (item !== undefined) return item;
  const attribute = typeof key === "string" ? ownAttribute(value, key) : undefined;
  return attribute === undefined ? missing(value, key) : attribute;
}

/** What Python's `getattr` gives, or undefined where it raises AttributeError. */
export function ownAttribute(value: Value, name: string): Value | undefined {
  const mutators =
    value instanceof Dict ? dictMutators : Array.isArray(value) ? listMutators : null;
  if (name.startsWith("__") || mutators?.has(name)) {
    if (name.startsWith("__") && !isPythonInternal(name)) return undefined;
    const reason = `access to attribute '${name}' of '${typeName(value)}' object is unsafe.`;
    return new Undefined(reason, "security");
  }
  if (typeof value === "string") return textMethod(value, name, access);
  if (value instanceof SafeText) {
    const method = textMethod(value.text, name, access);
    return method && new Callable(name, (args) => markSafe(method.call(args)));
  }
  const method = containerMethod(value, name);
  if (method !== undefined) return method;
  return value instanceof PythonObject ? value.attribute(name) : undefined;
}

/** The methods of safe text return safe text. */
function markSafe(value: Value): Value {
  if (typeof value === "string") return new SafeText(value);
  return Array.isArray(value) ? value.map(markSafe) : value;
}

/** Attributes that every Python object has; other names with underscores are ordinary keys. */
function isPythonInternal(name: string): boolean {
  return /^__(class|doc|init|new|repr|str|eq|ne|hash|dir|reduce|sizeof|len|iter)__$/.test(name);
}

function missing(value: Value, key: Value): Undefined {
  const name = `'${typeName(value)} object'`;
  const subject = value === null ? "'None'" : name;
  if (typeof key === "string") return new Undefined(`${subject} has no attribute '${key}'`);
  return new Undefined(`${subject} has no element ${represent(key)}`);
}

function itemOrUndefined(value: Value, key: Value): Value | undefined {
  if (value instanceof Dict) {
    // An unhashable key raises TypeError, which the lookup swallows.
    return Array.isArray(key) || key instanceof Dict ? undefined : value.get(key);
  }
  const index = asNumber(key);
  if (typeof index !== "number") return undefined;
  if (typeof value === "string" || value instanceof SafeText) {
    const text = typeof value === "string" ? value : value.text;
    return characters(text).at(index);
  }
  return sequenceItems(value)?.at(index);
}

/** `value[start:stop:step]`. */
export function slice(value: Value, start: Value, stop: Value, step: Value): Value {
  if (value instanceof Undefined) value.fail();
  const text = value instanceof SafeText ? value.text : value;
  if (typeof text === "string") {
    const part = sliceItems(characters(text), start, stop, step).join("");
    return value instanceof SafeText ? new SafeText(part) : part;
  }
  if (value instanceof Range) return sliceRange(value, start, stop, step);
  const items = sequenceItems(value);
  if (items === undefined) {
    throw new JinjaError("type", `'${typeName(value)}' object is not subscriptable by a slice`);
  }
  const part = sliceItems(items, start, stop, step);
  return value instanceof Tuple ? new Tuple(part) : part;
}

/** A slice of a range is a range. */
function sliceRange(range: Range, start: Value, stop: Value, step: Value): Range {
  const stride = step === null ? 1 : expectInteger(step, "slice step");
  const part = sliceItems(range.items(), start, stop, step);
  const first = part[0] ?? range.start;
  return new Range(first, first + part.length * range.step * stride, range.step * stride);
}

function sliceItems<T>(items: readonly T[], start: Value, stop: Value, step: Value): T[] {
  const stride = step === null ? 1 : expectInteger(step, "slice step");
  if (stride === 0) throw new JinjaError("value", "slice step cannot be zero");
  const low = stride < 0 ? -1 : 0;
  const high = stride < 0 ? items.length - 1 : items.length;
  const clamp = (bound: Value, fallback: number) => {
    if (bound === null) return fallback;
    const index = expectInteger(bound, "slice index");
    return Math.min(Math.max(index < 0 ? index + items.length : index, low), high);
  };
  const first = clamp(start, stride < 0 ? high : low);
  const last = clamp(stop, stride < 0 ? low : high);
  if (stride === 1) return items.slice(first, Math.max(first, last));
  const part: T[] = [];
  for (let index = first; stride < 0 ? index > last : index < last; index += stride) {
    part.push(items[index]!);
  }
  return part;
}
