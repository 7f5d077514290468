// Lengths and iteration: what `for`, `list()` and `len()` see of a value.
import { JinjaError } from "./errors.ts";
import { typeName } from "./print.ts";
import { characters, textLength } from "./unicode.ts";
import { Float, PythonObject, Range, SafeText, Tuple, type Value } from "./values.ts";

/** The items of a list, tuple or range; undefined for everything else. */
export function sequenceItems(value: Value): readonly Value[] | undefined {
  if (Array.isArray(value)) return value;
  if (value instanceof Tuple) return value.items;
  return value instanceof Range ? value.items() : undefined;
}

/** `iter(value)`. */
export function iterate(value: Value): Iterator<Value> {
  const iterator = tryIterate(value);
  if (iterator === undefined) {
    throw new JinjaError("type", `'${typeName(value)}' object is not iterable`);
  }
  return iterator;
}

export function tryIterate(value: Value): Iterator<Value> | undefined {
  if (Array.isArray(value)) return value.values();
  if (typeof value === "string") return characters(value).values();
  if (value instanceof SafeText) return characters(value.text).values();
  return value instanceof PythonObject ? value.iterate() : undefined;
}

/** `list(value)`; the result may be the value itself, which nobody changes. */
export function toList(value: Value): readonly Value[] {
  if (Array.isArray(value)) return value;
  const iterator = iterate(value);
  const items: Value[] = [];
  for (let step = iterator.next(); !step.done; step = iterator.next()) items.push(step.value);
  return items;
}

/** `len(value)`, or undefined where Python raises TypeError. */
export function lengthOf(value: Value): number | undefined {
  if (typeof value === "string") return textLength(value);
  if (value instanceof SafeText) return textLength(value.text);
  if (Array.isArray(value)) return value.length;
  return value instanceof PythonObject && !(value instanceof Float) ? value.length() : undefined;
}
