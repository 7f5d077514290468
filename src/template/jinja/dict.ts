// Python's dict: insertion order, keys of any hashable type, 1 and 1.0 and True the same key.
import { JinjaError } from "./errors.ts";
import { DictView, Float, PythonObject, SafeText, Tuple, Undefined, type Value } from "./values.ts";

type Key = string | number | bigint | null | PythonObject;

export class Dict extends PythonObject {
  readonly typeName = "dict";
  readonly #entries = new Map<Key, readonly [key: Value, value: Value]>();

  static of(entries: Iterable<readonly [Value, Value]>): Dict {
    const dict = new Dict();
    for (const [key, value] of entries) dict.set(key, value);
    return dict;
  }

  /** Only for building: a template cannot change a dict. */
  set(key: Value, value: Value): void {
    const hash = hashKey(key);
    const existing = this.#entries.get(hash);
    this.#entries.set(hash, [existing === undefined ? key : existing[0], value]);
  }
  get(key: Value): Value | undefined {
    return this.#entries.get(hashKey(key))?.[1];
  }
  has(key: Value): boolean {
    return this.#entries.has(hashKey(key));
  }
  get size(): number {
    return this.#entries.size;
  }
  entries(): Iterable<readonly [Value, Value]> {
    return this.#entries.values();
  }
  keys(): Value[] {
    return Array.from(this.#entries.values(), ([key]) => key);
  }

  view(kind: "keys" | "values" | "items"): DictView {
    const pairs = Array.from(this.#entries.values());
    if (kind === "keys") return new DictView("dict_keys", this.keys());
    if (kind === "values") {
      return new DictView(
        "dict_values",
        pairs.map(([, value]) => value),
      );
    }
    return new DictView(
      "dict_items",
      pairs.map((pair) => new Tuple(pair)),
    );
  }

  override truthy(): boolean {
    return this.#entries.size > 0;
  }
  override iterate(): Iterator<Value> {
    return this.keys().values();
  }
  override length(): number {
    return this.#entries.size;
  }
  override represent(inner: (value: Value) => string): string {
    const pairs = Array.from(this.entries(), ([key, value]) => `${inner(key)}: ${inner(value)}`);
    return `{${pairs.join(", ")}}`;
  }
}

/** A primitive that is equal exactly for values that Python calls equal. */
export function hashKey(value: Value): Key {
  if (typeof value === "string" || typeof value === "number" || typeof value === "bigint") {
    return value;
  }
  if (typeof value === "boolean") return Number(value);
  if (value === null) return null;
  if (value instanceof Float) return value.value;
  if (value instanceof SafeText) return value.text;
  // The NUL and the type letter keep a tuple's key apart from every string met in practice.
  if (value instanceof Tuple) return `\0(${value.items.map(describeKey).join("\0,")}\0)`;
  if (Array.isArray(value) || value instanceof Dict) {
    const name = Array.isArray(value) ? "list" : "dict";
    throw new JinjaError("type", `unhashable type: '${name}'`);
  }
  if (value instanceof Undefined) return "\0undefined";
  return value as PythonObject;
}

function describeKey(value: Value): string {
  const key = hashKey(value);
  return `${typeof key}:${String(key)}`;
}
