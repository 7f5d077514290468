// The values that a template computes with, as Python sees them. None, booleans, strings
// and lists are JavaScript's own; a number is an int (bigint beyond 2^53) and `Float` a
// float, since 1 and 1.0 print differently. Everything else extends `PythonObject`.
import { JinjaError } from "./errors.ts";

export type Value = null | boolean | number | bigint | string | readonly Value[] | PythonObject;

/** `value`, or `fallback` where there is none. `??` would take None for a missing value. */
export function given(value: Value | undefined, fallback: Value): Value {
  return value === undefined ? fallback : value;
}

/** What is neither a scalar nor a list. Subclasses override what their Python type supports. */
export abstract class PythonObject {
  /** Python's name of the type, for messages. */
  abstract readonly typeName: string;

  truthy(): boolean {
    return true;
  }
  /** Attribute by name, or undefined where the object has none. */
  attribute(_name: string): Value | undefined {
    return undefined;
  }
  /** A fresh iterator, or undefined where the object is not iterable. */
  iterate(): Iterator<Value> | undefined {
    return undefined;
  }
  length(): number | undefined {
    return undefined;
  }
  /** Text of `repr()`; `str()` is the same unless `print` in print.ts says otherwise. */
  represent(_inner: (value: Value) => string): string {
    return `<${this.typeName} object>`;
  }
}

export class Float extends PythonObject {
  readonly typeName = "float";
  readonly value: number;
  constructor(value: number) {
    super();
    this.value = value;
  }
  override truthy(): boolean {
    return this.value !== 0;
  }
}

/** A tuple; `names` makes it a named tuple (groupby's `grouper` and `list`). */
export class Tuple extends PythonObject {
  readonly typeName = "tuple";
  readonly items: readonly Value[];
  readonly names: readonly string[];
  constructor(items: readonly Value[], names: readonly string[] = []) {
    super();
    this.items = items;
    this.names = names;
  }
  override truthy(): boolean {
    return this.items.length > 0;
  }
  override attribute(name: string): Value | undefined {
    const index = this.names.indexOf(name);
    return index < 0 ? undefined : this.items[index];
  }
  override iterate(): Iterator<Value> {
    return this.items.values();
  }
  override length(): number {
    return this.items.length;
  }
  override represent(inner: (value: Value) => string): string {
    const text = this.items.map(inner).join(", ");
    return this.items.length === 1 ? `(${text},)` : `(${text})`;
  }
}

/** A missing value. Printing, iterating and testing it work; anything else raises. */
export class Undefined extends PythonObject {
  readonly typeName = "Undefined";
  readonly reason: string;
  readonly kind: "undefined" | "security";
  constructor(reason: string, kind: "undefined" | "security" = "undefined") {
    super();
    this.reason = reason;
    this.kind = kind;
  }
  fail(): never {
    throw new JinjaError(this.kind, this.reason);
  }
  override truthy(): boolean {
    return false;
  }
  override iterate(): Iterator<Value> {
    return [].values();
  }
  override length(): number {
    return 0;
  }
  override represent(): string {
    return "Undefined";
  }
}

/** Text marked safe by a filter: adding plain text to it escapes that text. */
export class SafeText extends PythonObject {
  readonly typeName = "Markup";
  readonly text: string;
  constructor(text: string) {
    super();
    this.text = text;
  }
  override truthy(): boolean {
    return this.text !== "";
  }
}

/** The only object that a template may assign attributes of. */
export class Namespace extends PythonObject {
  readonly typeName = "Namespace";
  readonly attributes = new Map<string, Value>();
  override attribute(name: string): Value | undefined {
    return this.attributes.get(name);
  }
  override represent(inner: (value: Value) => string): string {
    const entries = [...this.attributes].map(([name, value]) => `${inner(name)}: ${inner(value)}`);
    return `<Namespace {${entries.join(", ")}}>`;
  }
}

export class Range extends PythonObject {
  readonly typeName = "range";
  readonly start: number;
  readonly stop: number;
  readonly step: number;
  constructor(start: number, stop: number, step: number) {
    super();
    this.start = start;
    this.stop = stop;
    this.step = step;
  }
  override length(): number {
    return Math.max(0, Math.ceil((this.stop - this.start) / this.step));
  }
  override truthy(): boolean {
    return this.length() > 0;
  }
  items(): number[] {
    return Array.from({ length: this.length() }, (_, index) => this.start + index * this.step);
  }
  override attribute(name: string): Value | undefined {
    if (name === "start") return this.start;
    if (name === "stop") return this.stop;
    return name === "step" ? this.step : undefined;
  }
  override iterate(): Iterator<Value> {
    return this.items().values();
  }
  override represent(): string {
    const step = this.step === 1 ? "" : `, ${this.step}`;
    return `range(${this.start}, ${this.stop}${step})`;
  }
}

/** A generator: can be walked once, has no length and no items by index. */
export class LazySequence extends PythonObject {
  readonly typeName: string;
  readonly #iterator: Iterator<Value>;
  constructor(iterator: Iterator<Value>, typeName = "generator") {
    super();
    this.#iterator = iterator;
    this.typeName = typeName;
  }
  override iterate(): Iterator<Value> {
    return this.#iterator;
  }
}

/** `dict.keys()`, `dict.values()` or `dict.items()`. */
export class DictView extends PythonObject {
  readonly typeName: string;
  readonly items: readonly Value[];
  constructor(typeName: "dict_keys" | "dict_values" | "dict_items", items: readonly Value[]) {
    super();
    this.typeName = typeName;
    this.items = items;
  }
  override truthy(): boolean {
    return this.items.length > 0;
  }
  override iterate(): Iterator<Value> {
    return this.items.values();
  }
  override length(): number {
    return this.items.length;
  }
  override represent(inner: (value: Value) => string): string {
    return `${this.typeName}([${this.items.map(inner).join(", ")}])`;
  }
}

/** Arguments of one call; `named` keeps the order in which they were written. */
export class Arguments {
  static readonly none = new Arguments([], new Map());
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
  constructor(positional: readonly Value[], named: ReadonlyMap<string, Value> = new Map()) {
    this.positional = positional;
    this.named = named;
  }

  /** The values in the order of `parameters`; the first `numRequired` must be given. */
  bind(callee: string, parameters: readonly string[], numRequired = 0): (Value | undefined)[] {
    if (this.positional.length > parameters.length) {
      const most = parameters.length;
      const given = this.positional.length;
      throw new JinjaError("type", `${callee}() takes at most ${most} arguments (${given} given)`);
    }
    const values: (Value | undefined)[] = [...this.positional];
    values.length = parameters.length;
    for (const [name, value] of this.named) {
      const index = parameters.indexOf(name);
      if (index < 0) {
        throw new JinjaError("type", `${callee}() got an unexpected keyword argument '${name}'`);
      }
      if (index < this.positional.length) {
        throw new JinjaError("type", `${callee}() got multiple values for argument '${name}'`);
      }
      values[index] = value;
    }
    for (let index = 0; index < numRequired; index++) {
      if (values[index] === undefined) {
        const name = parameters[index];
        throw new JinjaError("type", `${callee}() missing required argument '${name}'`);
      }
    }
    return values;
  }
}

export class Callable extends PythonObject {
  readonly typeName: string;
  readonly name: string;
  readonly call: (args: Arguments) => Value;
  readonly #attributes: ReadonlyMap<string, Value>;
  constructor(
    name: string,
    call: (args: Arguments) => Value,
    typeName = "function",
    attributes: ReadonlyMap<string, Value> = new Map(),
  ) {
    super();
    this.name = name;
    this.call = call;
    this.typeName = typeName;
    this.#attributes = attributes;
  }
  override attribute(name: string): Value | undefined {
    return this.#attributes.get(name);
  }
  override represent(): string {
    return `<${this.typeName} ${this.name}>`;
  }
}
