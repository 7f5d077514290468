// Expressions of the syntax tree to closures. A template is compiled once and rendered for
// every request.
import { getAttribute, getItem, slice } from "./access.ts";
import { compare, contains, equal, truthy } from "./compare.ts";
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { filters } from "./filters.ts";
import { iterate } from "./iteration.ts";
import { checkTextLen } from "./limits.ts";
import { affirm, type BinaryOperator, calculate, negate } from "./operators.ts";
import { expectText, print, typeName } from "./print.ts";
import type { Scope } from "./scope.ts";
import type { Argument, CallExpression, Expression, Identifier } from "./syntax-tree.ts";
import { tests } from "./tests.ts";
import {
  Arguments,
  Callable,
  Float,
  given,
  SafeText,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

export type Evaluate = (scope: Scope) => Value;
export type EvaluateArguments = (scope: Scope) => Arguments;

/**
 * `isGuarded` is Jinja's "soft frame": under an `if`, an unknown filter or test fails only when
 * it is reached; elsewhere the whole template is refused.
 */
export function compileExpression(node: Expression, isGuarded: boolean): Evaluate {
  switch (node.type) {
    case "StringLiteral":
    case "IntegerLiteral": {
      const { value } = node;
      return () => value;
    }
    case "FloatLiteral": {
      const value = new Float(node.value);
      return () => value;
    }
    case "Identifier":
      return compileName(node.value);
    case "ArrayLiteral": {
      const items = node.value.map((item) => compileExpression(item, isGuarded));
      return (scope) => items.map((item) => item(scope));
    }
    case "TupleLiteral": {
      const items = node.value.map((item) => compileExpression(item, isGuarded));
      return (scope) => new Tuple(items.map((item) => item(scope)));
    }
    case "ObjectLiteral":
      return compileDict(node.value, isGuarded);
    case "MemberExpression":
      return compileMember(node, isGuarded);
    case "CallExpression":
      return compileCall(node, isGuarded);
    case "FilterExpression": {
      const apply = compileFilter(node.filter, isGuarded);
      const operand = compileExpression(node.operand, isGuarded);
      return (scope) => apply(operand(scope), scope);
    }
    case "TestExpression":
      return compileTest(node, isGuarded);
    case "UnaryExpression":
      return compileUnary(node.operator.value, compileExpression(node.argument, isGuarded));
    case "BinaryExpression":
      return compileBinary(node.operator.value, node.left, node.right, isGuarded);
    case "Ternary":
      return compileConditional(node.condition, node.trueExpr, node.falseExpr);
    case "SelectExpression":
      return compileConditional(node.test, node.lhs, undefined);
    default:
      throw new JinjaError("syntax", `unexpected ${(node as { type: string }).type}`);
  }
}

const constants: ReadonlyMap<string, Value> = new Map<string, Value>([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["none", null],
  ["None", null],
]);

function compileName(name: string): Evaluate {
  const constant = constants.get(name);
  if (constant !== undefined) return () => constant;
  const missing = new Undefined(`'${name}' is undefined`);
  return (scope) => given(scope.lookUp(name), missing);
}

function compileDict(entries: Map<Expression, Expression>, isGuarded: boolean): Evaluate {
  const pairs = Array.from(entries, ([key, value]) => ({
    key: compileExpression(key, isGuarded),
    value: compileExpression(value, isGuarded),
  }));
  return (scope) => {
    const dict = new Dict();
    for (const { key, value } of pairs) dict.set(key(scope), value(scope));
    return dict;
  };
}

function compileMember(
  node: Extract<Expression, { type: "MemberExpression" }>,
  isGuarded: boolean,
): Evaluate {
  const object = compileExpression(node.object, isGuarded);
  const { property } = node;
  if (property.type === "SliceExpression") {
    const bound = (part: Expression | undefined): Evaluate =>
      part === undefined ? () => null : compileExpression(part, isGuarded);
    const [start, stop, step] = [bound(property.start), bound(property.stop), bound(property.step)];
    return (scope) => slice(object(scope), start(scope), stop(scope), step(scope));
  }
  if (!node.computed && property.type === "Identifier") {
    const name = property.value;
    return (scope) => getAttribute(object(scope), name);
  }
  const key = compileExpression(property, isGuarded);
  return (scope) => getItem(object(scope), key(scope));
}

export function compileArguments(
  nodes: readonly Argument[],
  isGuarded: boolean,
): EvaluateArguments {
  if (nodes.length === 0) return () => Arguments.none;
  const steps = nodes.map((node) => {
    const isNamed = node.type === "KeywordArgumentExpression";
    const isSpread = node.type === "SpreadExpression" || node.type === "KeywordSpreadExpression";
    const expression = isNamed ? node.value : isSpread ? node.argument : (node as Expression);
    return {
      kind: node.type,
      name: isNamed ? node.key.value : "",
      evaluate: compileExpression(expression, isGuarded),
    };
  });
  return (scope) => {
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    const addNamed = (name: string, value: Value) => {
      if (named.has(name)) {
        throw new JinjaError("type", `got multiple values for keyword argument '${name}'`);
      }
      named.set(name, value);
    };
    for (const { kind, name, evaluate } of steps) {
      const value = evaluate(scope);
      if (kind === "KeywordArgumentExpression") addNamed(name, value);
      else if (kind === "SpreadExpression") {
        const iterator = iterate(value);
        for (let step = iterator.next(); !step.done; step = iterator.next()) {
          positional.push(step.value);
        }
      } else if (kind !== "KeywordSpreadExpression") positional.push(value);
      else if (value instanceof Dict) {
        for (const [key, item] of value.entries()) addNamed(expectText(key, "keyword"), item);
      } else throw new JinjaError("type", `argument after ** must be a mapping`);
    }
    return new Arguments(positional, named);
  };
}

function compileCall(node: CallExpression, isGuarded: boolean): Evaluate {
  const callee = compileExpression(node.callee, isGuarded);
  const args = compileArguments(node.args, isGuarded);
  return (scope) => {
    scope.runtime.step();
    return checkLength(callValue(callee(scope), args(scope)));
  };
}

export function callValue(callee: Value, args: Arguments): Value {
  if (callee instanceof Callable) return callee.call(args);
  if (callee instanceof Undefined) callee.fail();
  throw new JinjaError("type", `'${typeName(callee)}' object is not callable`);
}

export function compileFilter(
  node: Identifier | CallExpression,
  isGuarded: boolean,
): (value: Value, scope: Scope) => Value {
  const { name, args } = compileNamed(node, isGuarded);
  if (!isGuarded && !filters.has(name)) {
    throw new JinjaError("syntax", `No filter named '${name}'.`);
  }
  return (value, scope) =>
    checkLength(scope.runtime.filter(name)(value, args(scope), scope.runtime));
}

/** The name and arguments of a filter or test: `name` or `name(arguments)`. */
function compileNamed(node: Identifier | CallExpression, isGuarded: boolean) {
  if (node.type === "Identifier") return { name: node.value, args: () => Arguments.none };
  if (node.callee.type !== "Identifier") {
    throw new JinjaError("syntax", "a filter or test must be called by its name");
  }
  return { name: node.callee.value, args: compileArguments(node.args, isGuarded) };
}

function compileTest(
  node: Extract<Expression, { type: "TestExpression" }>,
  isGuarded: boolean,
): Evaluate {
  const operand = compileExpression(node.operand, isGuarded);
  const { name, args } = compileNamed(node.test, isGuarded);
  const { negate: isNegated } = node;
  if (!isGuarded && !tests.has(name)) {
    throw new JinjaError("syntax", `No test named '${name}'.`);
  }
  return (scope) => {
    const { runtime } = scope;
    return runtime.test(name)(operand(scope), args(scope), runtime) !== isNegated;
  };
}

function compileUnary(operator: string, argument: Evaluate): Evaluate {
  if (operator === "not") return (scope) => !truthy(argument(scope));
  return operator === "-" ? (scope) => negate(argument(scope)) : (scope) => affirm(argument(scope));
}

function compileBinary(
  operator: string,
  leftNode: Expression,
  rightNode: Expression,
  isGuarded: boolean,
): Evaluate {
  const left = compileExpression(leftNode, isGuarded);
  const right = compileExpression(rightNode, isGuarded);
  switch (operator) {
    case "and":
      return (scope) => {
        const value = left(scope);
        return truthy(value) ? right(scope) : value;
      };
    case "or":
      return (scope) => {
        const value = left(scope);
        return truthy(value) ? value : right(scope);
      };
    case "==":
      return (scope) => equal(left(scope), right(scope));
    case "!=":
      return (scope) => !equal(left(scope), right(scope));
    case "<":
      return (scope) => compare(left(scope), right(scope), operator) < 0;
    case "<=":
      return (scope) => compare(left(scope), right(scope), operator) <= 0;
    case ">":
      return (scope) => compare(left(scope), right(scope), operator) > 0;
    case ">=":
      return (scope) => compare(left(scope), right(scope), operator) >= 0;
    case "in":
      return (scope) => {
        const item = left(scope);
        return contains(right(scope), item);
      };
    case "not in":
      return (scope) => {
        const item = left(scope);
        return !contains(right(scope), item);
      };
    case "~":
      return (scope) => checkLength(print(left(scope)) + print(right(scope)));
    default:
      return (scope) =>
        checkLength(calculate(operator as BinaryOperator, left(scope), right(scope)));
  }
}

/** Doubling a text in a loop reaches the limit long before memory is gone. */
function checkLength(value: Value): Value {
  if (typeof value === "string") checkTextLen(value);
  else if (value instanceof SafeText) checkTextLen(value.text);
  return value;
}

function compileConditional(
  conditionNode: Expression,
  thenNode: Expression,
  otherwiseNode: Expression | undefined,
): Evaluate {
  const condition = compileExpression(conditionNode, true);
  const then = compileExpression(thenNode, true);
  const missing = new Undefined(
    "the inline if-expression evaluated to false and no else section was defined.",
  );
  const otherwise: Evaluate =
    otherwiseNode === undefined ? () => missing : compileExpression(otherwiseNode, true);
  return (scope) => (truthy(condition(scope)) ? then(scope) : otherwise(scope));
}
