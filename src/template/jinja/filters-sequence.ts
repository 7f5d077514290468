// Jinja's filters over lists, dicts and other iterables. Like Jinja's, `map`, `select` and
// their kin are generators: they can be walked once and have no length.
import { getAttribute, getItem, ownAttribute } from "./access.ts";
import { compare, equal, truthy } from "./compare.ts";
import { Dict, hashKey } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { iterate, lengthOf, toList } from "./iteration.ts";
import { calculate } from "./operators.ts";
import { expectInteger, expectText, print, typeName } from "./print.ts";
import type { Filter, Runtime } from "./runtime.ts";
import {
  Arguments,
  given,
  LazySequence,
  SafeText,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** A getter for "a.b.0"; a `fallback` replaces what is undefined on the way. */
function attributeGetter(path: Value | undefined, fallback?: Value) {
  const keys: Value[] =
    path === undefined || path === null
      ? []
      : typeof path === "string"
        ? path.split(".").map((part) => (/^\d+$/.test(part) ? Number(part) : part))
        : [path];
  return (item: Value): Value => {
    let value = item;
    for (const key of keys) {
      value = getItem(value, key);
      if (value instanceof Undefined && fallback !== undefined && fallback !== null) {
        value = fallback;
      }
    }
    return value;
  };
}

function ignoreCase(value: Value): Value {
  return typeof value === "string" ? value.toLowerCase() : value;
}

function* steps(value: Value, runtime: Runtime): Walk {
  const iterator = iterate(value);
  for (let step = iterator.next(); !step.done; step = iterator.next()) {
    runtime.step();
    yield step.value;
  }
}

type Walk = Generator<Value, undefined>;

function sortBy<T>(items: readonly T[], key: (item: T) => Value, reverse: boolean): T[] {
  const keyed = items.map((item) => ({ item, key: key(item) }));
  keyed.sort((a, b) => (reverse ? -compare(a.key, b.key) : compare(a.key, b.key)));
  return keyed.map(({ item }) => item);
}

function sort(value: Value, args: Arguments): Value {
  const names = ["reverse", "case_sensitive", "attribute"];
  const [reverse, caseSensitive, attribute] = args.bind("sort", names);
  const paths = typeof attribute === "string" ? attribute.split(",") : [attribute];
  const getters = paths.map((path) => attributeGetter(path));
  const fold = truthy(caseSensitive ?? false) ? (key: Value) => key : ignoreCase;
  const keyOf = (item: Value): Value => {
    const keys = getters.map((getter) => fold(getter(item)));
    return keys.length === 1 ? keys[0]! : keys;
  };
  return sortBy(toList(value), keyOf, truthy(reverse ?? false));
}

function dictSort(value: Value, args: Arguments): Value {
  const names = ["case_sensitive", "by", "reverse"];
  const [caseSensitive, by, reverse] = args.bind("dictsort", names);
  if (by !== undefined && by !== "key" && by !== "value") {
    throw new JinjaError("runtime", 'You can only sort by either "key" or "value"');
  }
  if (value instanceof Undefined) value.fail();
  if (!(value instanceof Dict)) throw new JinjaError("type", `${typeName(value)} has no items()`);
  const position = by === "value" ? 1 : 0;
  const fold = truthy(caseSensitive ?? false) ? (key: Value) => key : ignoreCase;
  const pairs = Array.from(value.entries());
  return sortBy(pairs, (pair) => fold(pair[position]!), truthy(reverse ?? false)).map(
    (pair) => new Tuple(pair),
  );
}

function unique(value: Value, args: Arguments, runtime: Runtime): Value {
  const [caseSensitive, attribute] = args.bind("unique", ["case_sensitive", "attribute"]);
  const getter = attributeGetter(attribute);
  const fold = truthy(caseSensitive ?? false) ? (key: Value) => key : ignoreCase;
  function* walk(): Walk {
    const seen = new Set<unknown>();
    for (const item of steps(value, runtime)) {
      const key = hashKey(fold(getter(item)));
      if (seen.has(key)) continue;
      seen.add(key);
      yield item;
    }
  }
  return new LazySequence(walk());
}

function extreme(name: string, sign: number): Filter {
  return (value, args) => {
    const [caseSensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"]);
    const getter = attributeGetter(attribute);
    const fold = truthy(caseSensitive ?? false) ? (key: Value) => key : ignoreCase;
    const [first, ...rest] = toList(value);
    if (first === undefined) return new Undefined("No aggregated item, sequence was empty.");
    let best = first;
    let bestKey = fold(getter(first));
    for (const item of rest) {
      const key = fold(getter(item));
      if (compare(key, bestKey) * sign > 0) {
        best = item;
        bestKey = key;
      }
    }
    return best;
  };
}

function groupBy(value: Value, args: Arguments): Value {
  const names = ["attribute", "default", "case_sensitive"];
  const [attribute, fallback, caseSensitive] = args.bind("groupby", names, 1);
  const getter = attributeGetter(attribute, fallback);
  const fold = truthy(caseSensitive ?? false) ? (key: Value) => key : ignoreCase;
  const keyOf = (item: Value) => fold(getter(item));
  const groups: { key: Value; items: Value[] }[] = [];
  for (const item of sortBy(toList(value), keyOf, false)) {
    const key = keyOf(item);
    const last = groups.at(-1);
    if (last !== undefined && equal(last.key, key)) last.items.push(item);
    else groups.push({ key, items: [item] });
  }
  return groups.map(({ items }) => new Tuple([getter(items[0]!), items], ["grouper", "list"]));
}

function join(value: Value, args: Arguments, runtime: Runtime): Value {
  const [separator, attribute] = args.bind("join", ["d", "attribute"]);
  const getter = attributeGetter(attribute);
  const parts: string[] = [];
  for (const item of steps(value, runtime)) parts.push(print(getter(item)));
  return parts.join(print(given(separator, "")));
}

function sum(value: Value, args: Arguments, runtime: Runtime): Value {
  const [attribute, start] = args.bind("sum", ["attribute", "start"]);
  const getter = attributeGetter(attribute);
  let total: Value = given(start, 0);
  for (const item of steps(value, runtime)) total = calculate("+", total, getter(item));
  return total;
}

function first(value: Value): Value {
  const step = iterate(value).next();
  return step.done ? new Undefined("No first item, sequence was empty.") : step.value;
}

function expectReversible(value: Value): readonly Value[] {
  if (value instanceof LazySequence) {
    throw new JinjaError("type", `'${typeName(value)}' object is not reversible`);
  }
  return toList(value);
}

function last(value: Value): Value {
  return given(expectReversible(value).at(-1), new Undefined("No last item, sequence was empty."));
}

function reverse(value: Value): Value {
  const text = value instanceof SafeText ? value.text : value;
  if (typeof text === "string") return Array.from(text).reverse().join("");
  const items = Array.from(toList(value)).reverse();
  return value instanceof LazySequence
    ? items
    : new LazySequence(items.values(), "list_reverseiterator");
}

function batch(value: Value, args: Arguments, runtime: Runtime): Value {
  const [count, fill] = args.bind("batch", ["linecount", "fill_with"], 1);
  const size = expectInteger(count, "linecount");
  function* walk(): Walk {
    let row: Value[] = [];
    for (const item of steps(value, runtime)) {
      if (row.length === size) {
        yield row;
        row = [];
      }
      row.push(item);
    }
    if (row.length === 0) return;
    while (fill !== undefined && fill !== null && row.length < size) row.push(fill);
    yield row;
  }
  return new LazySequence(walk());
}

function sliceColumns(value: Value, args: Arguments): Value {
  const [count, fill] = args.bind("slice", ["slices", "fill_with"], 1);
  const slices = expectInteger(count, "slices");
  const items = toList(value);
  if (slices === 0) throw new JinjaError("value", "integer division or modulo by zero");
  const perSlice = Math.floor(items.length / slices);
  const numLonger = items.length % slices;
  const columns: Value[] = [];
  let start = 0;
  for (let index = 0; index < slices; index++) {
    const end = start + perSlice + (index < numLonger ? 1 : 0);
    const column = items.slice(start, end);
    const needsFill = fill !== undefined && fill !== null && index >= numLonger;
    columns.push(needsFill ? [...column, fill] : column);
    start = end;
  }
  return new LazySequence(columns.values());
}

function map(value: Value, args: Arguments, runtime: Runtime): Value {
  let apply: (item: Value) => Value;
  if (args.positional.length === 0 && args.named.has("attribute")) {
    for (const name of args.named.keys()) {
      if (name !== "attribute" && name !== "default") {
        throw new JinjaError("runtime", `Unexpected keyword argument '${name}'`);
      }
    }
    apply = attributeGetter(args.named.get("attribute"), args.named.get("default"));
  } else {
    const [name, ...rest] = args.positional;
    if (name === undefined) throw new JinjaError("runtime", "map requires a filter argument");
    const inner = new Arguments(rest, args.named);
    apply = (item) => runtime.filter(expectText(name, "filter name"))(item, inner, runtime);
  }
  function* walk(): Walk {
    if (!truthy(value)) return;
    for (const item of steps(value, runtime)) yield apply(item);
  }
  return new LazySequence(walk());
}

function selecting(wanted: boolean, byAttribute: boolean): Filter {
  return (value, args, runtime) => {
    const [path, ...afterPath] = args.positional;
    if (byAttribute && path === undefined) {
      throw new JinjaError("runtime", "Missing parameter for attribute name");
    }
    const getter = attributeGetter(byAttribute ? path : undefined);
    const [testName, ...rest] = byAttribute ? afterPath : args.positional;
    const inner = new Arguments(rest, args.named);
    const accept = (item: Value): boolean => {
      const subject = getter(item);
      if (testName === undefined) return truthy(subject);
      return runtime.test(expectText(testName, "test name"))(subject, inner, runtime);
    };
    function* walk(): Walk {
      if (!truthy(value)) return;
      for (const item of steps(value, runtime)) if (accept(item) === wanted) yield item;
    }
    return new LazySequence(walk());
  };
}

function items(value: Value): Value {
  if (value instanceof Undefined) return new LazySequence([].values());
  if (!(value instanceof Dict)) {
    throw new JinjaError("type", "Can only get item pairs from a mapping.");
  }
  return new LazySequence(value.view("items").iterate());
}

function fallBack(value: Value, args: Arguments): Value {
  const [fallback, boolean] = args.bind("default", ["default_value", "boolean"]);
  const isMissing = value instanceof Undefined || (truthy(boolean ?? false) && !truthy(value));
  return isMissing ? given(fallback, "") : value;
}

function attribute(value: Value, args: Arguments): Value {
  const [name] = args.bind("attr", ["name"], 1);
  const text = expectText(name, "attribute name");
  if (value instanceof Undefined) value.fail();
  return ownAttribute(value, text) === undefined
    ? new Undefined(`'${typeName(value)} object' has no attribute '${text}'`)
    : getAttribute(value, text);
}

function random(value: Value): Value {
  if (lengthOf(value) === undefined) throw new JinjaError("type", "random needs a sequence");
  const choices = toList(value);
  const choice = choices[Math.floor(Math.random() * choices.length)];
  return given(choice, new Undefined("No random item, sequence was empty."));
}

export const sequenceFilters: readonly (readonly [string, Filter])[] = [
  ["attr", attribute],
  ["batch", batch],
  ["d", fallBack],
  ["default", fallBack],
  ["dictsort", dictSort],
  ["first", first],
  ["groupby", groupBy],
  ["items", items],
  ["join", join],
  ["last", last],
  ["list", toList],
  ["map", map],
  ["max", extreme("max", 1)],
  ["min", extreme("min", -1)],
  ["random", random],
  ["reject", selecting(false, false)],
  ["rejectattr", selecting(false, true)],
  ["reverse", reverse],
  ["select", selecting(true, false)],
  ["selectattr", selecting(true, true)],
  ["slice", sliceColumns],
  ["sort", sort],
  ["sum", sum],
  ["unique", unique],
];
