// The methods of dict, list, tuple, range, int and float that leave their object unchanged.
import { equal } from "./compare.ts";
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { expectInteger, represent } from "./print.ts";
import { type Arguments, Callable, Float, given, Range, Tuple, type Value } from "./values.ts";

export function containerMethod(value: Value, name: string): Value | undefined {
  if (value instanceof Dict) return dictMethod(value, name);
  if (Array.isArray(value)) {
    if (name === "copy") return method(name, () => value);
    return sequenceMethod(value, name);
  }
  if (value instanceof Tuple) return sequenceMethod(value.items, name);
  if (value instanceof Range) return sequenceMethod(value.items(), name);
  if (value instanceof Float) return floatMethod(value.value, name);
  return typeof value === "number" || typeof value === "bigint" || typeof value === "boolean"
    ? integerMethod(BigInt(value), name)
    : undefined;
}

function dictMethod(dict: Dict, name: string): Value | undefined {
  switch (name) {
    case "get":
      return new Callable(name, (args) => {
        const [key, fallback] = args.bind(name, ["key", "default"], 1);
        return given(dict.get(key!), given(fallback, null));
      });
    case "keys":
    case "values":
    case "items":
      return new Callable(name, (args) => {
        args.bind(name, []);
        return dict.view(name);
      });
    case "copy":
      return new Callable(name, () => dict);
    case "fromkeys":
      return new Callable(name, (args) => {
        const [keys, value] = args.bind(name, ["iterable", "value"], 1);
        if (!Array.isArray(keys)) throw new JinjaError("type", "fromkeys() needs a list of keys");
        return Dict.of(keys.map((key: Value) => [key, value ?? null] as const));
      });
    default:
      return undefined;
  }
}

function sequenceMethod(items: readonly Value[], name: string): Value | undefined {
  if (name === "count") {
    return new Callable(name, (args) => {
      const [wanted] = args.bind(name, ["value"], 1);
      return items.filter((item) => equal(item, wanted!)).length;
    });
  }
  if (name !== "index") return undefined;
  return new Callable(name, (args) => {
    const [wanted, start, stop] = args.bind(name, ["value", "start", "stop"], 1);
    const bound = (value: Value | undefined, fallback: number) => {
      const index = value === undefined ? fallback : expectInteger(value, "index()");
      return index < 0 ? Math.max(0, index + items.length) : index;
    };
    const end = Math.min(bound(stop, items.length), items.length);
    for (let index = bound(start, 0); index < end; index++) {
      if (equal(items[index]!, wanted!)) return index;
    }
    throw new JinjaError("value", `${represent(wanted!)} is not in list`);
  });
}

function floatMethod(value: number, name: string): Value | undefined {
  if (name === "is_integer") return method(name, () => Number.isInteger(value));
  if (name === "conjugate") return method(name, () => new Float(value));
  if (name === "real") return new Float(value);
  return name === "imag" ? new Float(0) : undefined;
}

function integerMethod(value: bigint, name: string): Value | undefined {
  const small = Number(value);
  const whole = Number.isSafeInteger(small) ? small : value;
  switch (name) {
    case "real":
    case "numerator":
      return whole;
    case "imag":
      return 0;
    case "denominator":
      return 1;
    case "conjugate":
      return method(name, () => whole);
    case "bit_length":
      return method(name, () => (value === 0n ? 0 : value.toString(2).replace("-", "").length));
    case "bit_count":
      return method(name, () => value.toString(2).replaceAll(/[^1]/g, "").length);
    default:
      return undefined;
  }
}

function method(name: string, call: () => Value): Callable {
  return new Callable(name, (args: Arguments) => {
    args.bind(name, []);
    return call();
  });
}
