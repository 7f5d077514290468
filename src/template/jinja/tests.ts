// Jinja's tests: what may follow `is`.

import { compare, contains, equal } from "./compare.ts";
import { Dict } from "./dict.ts";
import { lengthOf, tryIterate } from "./iteration.ts";
import { asNumber, calculate } from "./operators.ts";
import { expectText, print } from "./print.ts";
import type { Test } from "./runtime.ts";
import { testCharacters } from "./text-tests.ts";
import {
  type Arguments,
  Callable,
  DictView,
  Float,
  LazySequence,
  SafeText,
  Undefined,
  type Value,
} from "./values.ts";

function operand(args: Arguments): Value {
  const [value] = args.bind("test", ["other"], 1);
  return value!;
}

function remainderIs(remainder: number): Test {
  return (value) => equal(calculate("%", value, 2), remainder);
}

function ordered(operator: string, accept: (order: number) => boolean): Test {
  return (value, args) => accept(compare(value, operand(args), operator));
}

function isInteger(value: Value): boolean {
  return typeof value === "number" || typeof value === "bigint";
}

function isSequence(value: Value): boolean {
  if (value instanceof Undefined) return true;
  const hasItems = !(value instanceof DictView) && !(value instanceof LazySequence);
  return hasItems && lengthOf(value) !== undefined;
}

function same(value: Value, other: Value): boolean {
  if (value instanceof Float && other instanceof Float) return Object.is(value.value, other.value);
  return value === other;
}

const greater = ordered(">", (order) => order > 0);
const greaterOrEqual = ordered(">=", (order) => order >= 0);
const less = ordered("<", (order) => order < 0);
const lessOrEqual = ordered("<=", (order) => order <= 0);
const equals: Test = (value, args) => equal(value, operand(args));
const differs: Test = (value, args) => !equal(value, operand(args));

function divisible(value: Value, args: Arguments): boolean {
  return equal(calculate("%", value, operand(args)), 0);
}

export const tests: ReadonlyMap<string, Test> = new Map<string, Test>([
  ["!=", differs],
  ["<", less],
  ["<=", lessOrEqual],
  ["==", equals],
  [">", greater],
  [">=", greaterOrEqual],
  ["boolean", (value) => typeof value === "boolean"],
  ["callable", (value) => value instanceof Callable || value instanceof Undefined],
  ["defined", (value) => !(value instanceof Undefined)],
  ["divisibleby", divisible],
  ["eq", equals],
  ["equalto", equals],
  ["escaped", (value) => value instanceof SafeText],
  ["even", remainderIs(0)],
  ["false", (value) => value === false],
  ["filter", (value, _args, runtime) => runtime.hasFilter(expectText(value, "filter name"))],
  ["float", (value) => value instanceof Float],
  ["ge", greaterOrEqual],
  ["greaterthan", greater],
  ["gt", greater],
  ["in", (value, args) => contains(operand(args), value)],
  ["integer", isInteger],
  ["iterable", (value) => tryIterate(value) !== undefined],
  ["le", lessOrEqual],
  ["lessthan", less],
  ["lower", (value) => testCharacters(print(value), "islower") ?? false],
  ["lt", less],
  ["mapping", (value) => value instanceof Dict],
  ["ne", differs],
  ["none", (value) => value === null],
  ["number", (value) => asNumber(value) !== undefined],
  ["odd", remainderIs(1)],
  ["sameas", (value, args) => same(value, operand(args))],
  ["sequence", isSequence],
  ["string", (value) => typeof value === "string" || value instanceof SafeText],
  ["test", (value, _args, runtime) => runtime.hasTest(expectText(value, "test name"))],
  ["true", (value) => value === true],
  ["undefined", (value) => value instanceof Undefined],
  ["upper", (value) => testCharacters(print(value), "isupper") ?? false],
]);
