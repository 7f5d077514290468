// The `loop` object of a `for`. It walks lazily, as Jinja's does: the length is known, and the
// next item fetched, only when the template asks.

import { equal } from "./compare.ts";
import { JinjaError } from "./errors.ts";
import { toList, tryIterate } from "./iteration.ts";
import { type Arguments, Callable, given, Tuple, Undefined, type Value } from "./values.ts";

export class Loop extends Callable {
  readonly #recurse: ((items: Value, depth: number) => Value) | undefined;
  readonly #depth0: number;
  #iterator: Iterator<Value>;
  #index0 = -1;
  #length: number | undefined;
  #next: Value | undefined;
  #current: Value | undefined;
  #previous: Value | undefined;
  #lastChanged: Value | undefined;

  constructor(
    iterator: Iterator<Value>,
    length: number | undefined,
    recurse: ((items: Value, depth: number) => Value) | undefined,
    depth0: number,
  ) {
    super("loop", (args) => this.#callRecursively(args), "LoopContext");
    this.#iterator = iterator;
    this.#length = length;
    this.#recurse = recurse;
    this.#depth0 = depth0;
  }

  /** Steps to the next item; undefined at the end. */
  advance(): Value | undefined {
    const item = this.#peek();
    this.#next = undefined;
    if (item === undefined) return undefined;
    this.#index0++;
    this.#previous = this.#current;
    this.#current = item;
    return item;
  }

  #peek(): Value | undefined {
    if (this.#next === undefined) {
      const step = this.#iterator.next();
      this.#next = step.done ? undefined : step.value;
    }
    return this.#next;
  }

  override length(): number {
    if (this.#length === undefined) {
      const rest: Value[] = [];
      for (let step = this.#iterator.next(); !step.done; step = this.#iterator.next()) {
        rest.push(step.value);
      }
      this.#iterator = rest.values();
      this.#length = rest.length + this.#index0 + 1 + (this.#next === undefined ? 0 : 1);
    }
    return this.#length;
  }

  override attribute(name: string): Value | undefined {
    switch (name) {
      case "index":
        return this.#index0 + 1;
      case "index0":
        return this.#index0;
      case "revindex":
        return this.length() - this.#index0;
      case "revindex0":
        return this.length() - this.#index0 - 1;
      case "first":
        return this.#index0 === 0;
      case "last":
        return this.#peek() === undefined;
      case "length":
        return this.length();
      case "depth":
        return this.#depth0 + 1;
      case "depth0":
        return this.#depth0;
      case "previtem":
        return given(this.#previous, new Undefined("there is no previous item"));
      case "nextitem":
        return given(this.#peek(), new Undefined("there is no next item"));
      case "cycle":
        return new Callable(name, (args) => this.#cycle(args));
      case "changed":
        return new Callable(name, (args) => this.#changed(args));
      default:
        return undefined;
    }
  }

  #cycle(args: Arguments): Value {
    const { positional } = args;
    if (positional.length === 0) throw new JinjaError("type", "no items for cycling given");
    return positional[this.#index0 % positional.length]!;
  }

  #changed(args: Arguments): Value {
    const values = new Tuple(args.positional);
    if (this.#lastChanged !== undefined && equal(this.#lastChanged, values)) return false;
    this.#lastChanged = values;
    return true;
  }

  /** `loop(items)` in a recursive loop. */
  #callRecursively(args: Arguments): Value {
    const [items] = args.bind("loop", ["iterable"], 1);
    if (this.#recurse === undefined) {
      const reason = "The loop must have the 'recursive' marker to be called recursively.";
      throw new JinjaError("type", reason);
    }
    return this.#recurse(items!, this.#depth0 + 1);
  }

  override represent(): string {
    return `<LoopContext ${this.#index0 + 1}/${this.length()}>`;
  }
}

/** The values for `count` targets of an assignment. */
export function unpack(value: Value, count: number): readonly Value[] {
  if (value instanceof Undefined) value.fail();
  if (tryIterate(value) === undefined) {
    throw new JinjaError("type", "cannot unpack non-iterable object");
  }
  const items = toList(value);
  if (items.length > count) {
    throw new JinjaError("value", `too many values to unpack (expected ${count})`);
  }
  if (items.length < count) {
    const found = items.length;
    throw new JinjaError("value", `not enough values to unpack (expected ${count}, got ${found})`);
  }
  return items;
}
