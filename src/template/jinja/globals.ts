// The names that every template sees: Jinja's own and the two that Hugging Face adds.

import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { tryIterate } from "./iteration.ts";
import { expectInteger, expectText, print, typeName } from "./print.ts";
import type { Runtime } from "./runtime.ts";
import { formatTime } from "./strftime.ts";
import {
  type Arguments,
  Callable,
  given,
  Namespace,
  PythonObject,
  Range,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** Jinja's sandbox refuses longer ranges. */
const maxRangeLen = 100_000;

function range(args: Arguments): Value {
  const [first, second, third] = args.bind("range", ["start", "stop", "step"], 1);
  const start = second === undefined ? 0 : expectInteger(first, "range() argument");
  const stop = expectInteger(second ?? first, "range() argument");
  const step = third === undefined ? 1 : expectInteger(third, "range() argument");
  if (step === 0) throw new JinjaError("value", "range() arg 3 must not be zero");
  const result = new Range(start, stop, step);
  if (result.length() > maxRangeLen) {
    const limit = `ranges larger than MAX_RANGE (${maxRangeLen})`;
    throw new JinjaError("value", `Range too big. The sandbox blocks ${limit}.`);
  }
  return result;
}

/** `dict(mapping or pairs, name=value…)`. */
function dict(args: Arguments): Dict {
  if (args.positional.length > 1) {
    throw new JinjaError("type", `dict expected at most 1 argument`);
  }
  const [source] = args.positional;
  const result = new Dict();
  if (source instanceof Dict) for (const [key, value] of source.entries()) result.set(key, value);
  else if (source !== undefined) for (const [key, value] of pairs(source)) result.set(key, value);
  for (const [name, value] of args.named) result.set(name, value);
  return result;
}

function* pairs(source: Value): Iterable<readonly [Value, Value]> {
  if (source instanceof Undefined) return;
  const iterator = tryIterate(source);
  if (iterator === undefined) {
    throw new JinjaError("type", `'${typeName(source)}' object is not iterable`);
  }
  for (let step = iterator.next(); !step.done; step = iterator.next()) {
    const pair = step.value instanceof Tuple ? step.value.items : step.value;
    const items: readonly Value[] = typeof pair === "string" ? Array.from(pair) : listOf(pair);
    if (items.length !== 2) {
      throw new JinjaError("value", "dictionary update sequence elements must have length 2");
    }
    yield [items[0]!, items[1]!];
  }
}

function listOf(value: Value): readonly Value[] {
  if (Array.isArray(value)) return value;
  throw new JinjaError("type", "cannot convert dictionary update sequence element to a sequence");
}

function namespace(args: Arguments): Namespace {
  const result = new Namespace();
  for (const [key, value] of dict(args).entries()) result.attributes.set(print(key), value);
  return result;
}

/** Walks through its items again and again: `cycler("odd", "even").next()`. */
class Cycler extends PythonObject {
  readonly typeName = "Cycler";
  readonly #items: readonly Value[];
  #position = 0;
  constructor(items: readonly Value[]) {
    super();
    this.#items = items;
  }
  override attribute(name: string): Value | undefined {
    const current = this.#items[this.#position]!;
    if (name === "current") return current;
    if (name === "reset") {
      return new Callable(name, () => {
        this.#position = 0;
        return null;
      });
    }
    if (name !== "next") return undefined;
    return new Callable(name, () => {
      const item = this.#items[this.#position]!;
      this.#position = (this.#position + 1) % this.#items.length;
      return item;
    });
  }
}

function cycler(args: Arguments): Value {
  if (args.positional.length > 0) return new Cycler(args.positional);
  throw new JinjaError("runtime", "at least one item has to be provided");
}

/** Empty when first called, the separator from then on. */
function joiner(args: Arguments): Value {
  const [separator] = args.bind("joiner", ["sep"]);
  let used = false;
  return new Callable("joiner", () => {
    const text = used ? given(separator, ", ") : "";
    used = true;
    return text;
  });
}

function raiseException(args: Arguments): never {
  const [message] = args.bind("raise_exception", ["message"], 1);
  throw new JinjaError("raised", print(message!));
}

export function globalVariables(runtime: Runtime): Map<string, Value> {
  const functions: [string, (args: Arguments) => Value][] = [
    ["range", range],
    ["dict", dict],
    ["namespace", namespace],
    ["cycler", cycler],
    ["joiner", joiner],
    ["raise_exception", raiseException],
    [
      "strftime_now",
      (args) => {
        const [format] = args.bind("strftime_now", ["format"], 1);
        return formatTime(runtime.now, expectText(format, "strftime() argument"));
      },
    ],
  ];
  return new Map(functions.map(([name, call]) => [name, new Callable(name, call)]));
}
