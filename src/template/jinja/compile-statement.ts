// Statements of the syntax tree to closures that append to an output.

import { truthy } from "./compare.ts";
import {
  callValue,
  compileArguments,
  compileExpression,
  compileFilter,
  type Evaluate,
} from "./compile-expression.ts";
import { JinjaError } from "./errors.ts";
import { iterate, lengthOf } from "./iteration.ts";
import { generationFunction } from "./lexer.ts";
import { checkTextLen } from "./limits.ts";
import { Loop, unpack } from "./loop.ts";
import { createMacro, defineMacro } from "./macro.ts";
import { print } from "./print.ts";
import { Output, type Scope } from "./scope.ts";
import type {
  CallStatement,
  Expression,
  ForStatement,
  SetStatement,
  Statement,
} from "./syntax-tree.ts";
import { Arguments, Namespace, type Value } from "./values.ts";

/** How a statement ended: on to the next, or out of or on in the innermost loop. */
type Signal = "next" | "break" | "continue";
type Execute = (scope: Scope, output: Output) => Signal;
type Assign = (value: Value, scope: Scope) => void;

export interface StatementContext {
  lineOf(tokenIndex: number): number;
  /** Under an `if`: unknown filters fail only when reached. */
  isGuarded: boolean;
  isInLoop: boolean;
}

export function compileBody(nodes: readonly Statement[], context: StatementContext): Execute {
  const steps = nodes.map((node) => compileLocated(node, context));
  return (scope, output) => {
    for (const step of steps) {
      const signal = step(scope, output);
      if (signal !== "next") return signal;
    }
    return "next";
  };
}

/** Adds the line to errors that pass through without one. */
function compileLocated(node: Statement, context: StatementContext): Execute {
  const line = context.lineOf(node.tokenIndex ?? 0);
  const locate = (error: unknown): never => {
    if (error instanceof JinjaError) error.line ??= line;
    throw error;
  };
  let execute: Execute;
  try {
    execute = compileStatement(node, context);
  } catch (error) {
    return locate(error);
  }
  return (scope, output) => {
    try {
      return execute(scope, output);
    } catch (error) {
      return locate(error);
    }
  };
}

function compileStatement(node: Statement, context: StatementContext): Execute {
  switch (node.type) {
    case "Comment":
      return () => "next";
    case "Break":
    case "Continue": {
      if (!context.isInLoop) {
        throw new JinjaError("syntax", `'${node.type.toLowerCase()}' outside of a loop`);
      }
      const signal = node.type === "Break" ? "break" : "continue";
      return () => signal;
    }
    case "If":
      return compileIf(node, { ...context, isGuarded: true });
    case "For":
      return compileFor(node, context);
    case "Set":
      return compileSet(node, context);
    case "With":
      return compileWith(node.targets, node.values, node.body, context);
    case "Macro": {
      const body = compileCapture(node.body, { ...context, isGuarded: false, isInLoop: false });
      const definition = defineMacro(node.name.value, node.args, node.body, body);
      return (scope) => {
        scope.set(definition.name, createMacro(definition, scope));
        return "next";
      };
    }
    case "CallStatement":
      return compileCallBlock(node, context);
    case "FilterStatement": {
      const body = compileCapture(node.body, { ...context, isGuarded: false, isInLoop: false });
      const filter = compileFilter(node.filter, context.isGuarded);
      return (scope, output) => append(output, print(filter(body(scope.inner()), scope)));
    }
    default:
      return compilePrint(node, context);
  }
}

function compilePrint(node: Expression, context: StatementContext): Execute {
  if (node.type === "StringLiteral") {
    const { value } = node;
    return (_scope, output) => append(output, value);
  }
  const evaluate = compileExpression(node, context.isGuarded);
  return (scope, output) => append(output, print(evaluate(scope)));
}

function append(output: Output, text: string): Signal {
  output.text = checkTextLen(output.text + text);
  return "next";
}

/** A body whose output becomes a text value. */
function compileCapture(
  nodes: readonly Statement[],
  context: StatementContext,
): (scope: Scope) => string {
  const body = compileBody(nodes, context);
  return (scope) => {
    const output = new Output();
    body(scope, output);
    return output.text;
  };
}

function compileIf(node: Extract<Statement, { type: "If" }>, context: StatementContext): Execute {
  const test = compileExpression(node.test, true);
  const body = compileBody(node.body, context);
  const alternate = compileBody(node.alternate, context);
  return (scope, output) => (truthy(test(scope)) ? body(scope, output) : alternate(scope, output));
}

/** Names, tuples of targets, and `namespace.attribute`. */
function compileTarget(node: Expression): Assign {
  if (node.type === "Identifier") {
    const name = node.value;
    return (value, scope) => scope.set(name, value);
  }
  if (node.type === "TupleLiteral") {
    const targets = node.value.map(compileTarget);
    return (value, scope) => {
      const items = unpack(value, targets.length);
      targets.forEach((assign, index) => {
        assign(items[index]!, scope);
      });
    };
  }
  const isAttribute = node.type === "MemberExpression" && !node.computed;
  if (isAttribute && node.object.type === "Identifier" && node.property.type === "Identifier") {
    const object = compileExpression(node.object, false);
    const attribute = node.property.value;
    return (value, scope) => {
      const namespace = object(scope);
      if (!(namespace instanceof Namespace)) {
        const reason = "cannot assign attribute on non-namespace object";
        throw new JinjaError("runtime", reason);
      }
      namespace.attributes.set(attribute, value);
    };
  }
  throw new JinjaError("syntax", `can't assign to this expression`);
}

function compileSet(node: SetStatement, context: StatementContext): Execute {
  if (node.value !== null) {
    const assign = compileTarget(node.assignee);
    const evaluate = compileExpression(node.value, context.isGuarded);
    return (scope) => {
      assign(evaluate(scope), scope);
      return "next";
    };
  }
  // `{% set name | filter %}…{% endset %}`: the filters stand on the name.
  const applied: ((value: Value, scope: Scope) => Value)[] = [];
  let target = node.assignee;
  while (target.type === "FilterExpression") {
    applied.unshift(compileFilter(target.filter, context.isGuarded));
    target = target.operand;
  }
  const assign = compileTarget(target);
  const body = compileCapture(node.body, { ...context, isGuarded: false, isInLoop: false });
  return (scope) => {
    let value: Value = body(scope.inner());
    for (const filter of applied) value = filter(value, scope);
    assign(value, scope);
    return "next";
  };
}

function compileWith(
  targetNodes: readonly Expression[],
  valueNodes: readonly Expression[],
  bodyNodes: readonly Statement[],
  context: StatementContext,
): Execute {
  const targets = targetNodes.map(compileTarget);
  const values = valueNodes.map((node) => compileExpression(node, context.isGuarded));
  const body = compileBody(bodyNodes, { ...context, isGuarded: false });
  return (scope, output) => {
    const inner = scope.inner();
    targets.forEach((assign, index) => {
      assign(values[index]!(scope), inner);
    });
    return body(inner, output);
  };
}

function compileCallBlock(node: CallStatement, context: StatementContext): Execute {
  const bodyContext = { ...context, isGuarded: false, isInLoop: false };
  const body = compileCapture(node.body, bodyContext);
  const { callee, args: argumentNodes } = node.call;
  if (callee.type === "Identifier" && callee.value === generationFunction) {
    return (scope, output) => append(output, body(scope.inner()));
  }
  const definition = defineMacro("caller", node.callerArgs ?? [], node.body, body);
  const evaluateCallee = compileExpression(callee, context.isGuarded);
  const evaluateArguments = compileArguments(argumentNodes, context.isGuarded);
  return (scope, output) => {
    const { positional, named } = evaluateArguments(scope);
    const caller = createMacro(definition, scope);
    const args = new Arguments(positional, new Map([...named, ["caller", caller]]));
    return append(output, print(callValue(evaluateCallee(scope), args)));
  };
}

interface CompiledLoop {
  assign: Assign;
  filter: Evaluate | undefined;
  body: Execute;
  otherwise: Execute;
  isRecursive: boolean;
}

function compileFor(node: ForStatement, context: StatementContext): Execute {
  const hasFilter = node.iterable.type === "SelectExpression";
  const filter = hasFilter && node.iterable.type === "SelectExpression" ? node.iterable : undefined;
  const iterable = compileExpression(filter?.lhs ?? node.iterable, context.isGuarded);
  const inner = { ...context, isGuarded: false, isInLoop: true };
  const loop: CompiledLoop = {
    assign: compileTarget(node.loopvar),
    filter: filter === undefined ? undefined : compileExpression(filter.test, false),
    body: compileBody(node.body, inner),
    otherwise: compileBody(node.defaultBlock, { ...inner, isInLoop: context.isInLoop }),
    isRecursive: node.recursive,
  };
  return (scope, output) => runLoop(loop, iterable(scope), scope, output, 0);
}

function runLoop(
  compiled: CompiledLoop,
  items: Value,
  scope: Scope,
  output: Output,
  depth: number,
): Signal {
  const { filter, assign } = compiled;
  const iterator = filter === undefined ? iterate(items) : select(items, filter, assign, scope);
  const length = filter === undefined ? lengthOf(items) : undefined;
  const recurse = (innerItems: Value, innerDepth: number): Value => {
    const innerOutput = new Output();
    runLoop(compiled, innerItems, scope, innerOutput, innerDepth);
    return innerOutput.text;
  };
  const loop = new Loop(iterator, length, compiled.isRecursive ? recurse : undefined, depth);
  let finishedOne = false;
  for (let item = loop.advance(); item !== undefined; item = loop.advance()) {
    scope.runtime.step();
    const inner = scope.inner();
    inner.set("loop", loop);
    assign(item, inner);
    const signal = compiled.body(inner, output);
    if (signal === "break") break;
    // Jinja marks a round as done at its end, so a loop that only continues runs its `else`.
    if (signal === "next") finishedOne = true;
  }
  return finishedOne ? "next" : compiled.otherwise(scope.inner(), output);
}

function* select(
  items: Value,
  filter: Evaluate,
  assign: Assign,
  scope: Scope,
): Generator<Value, undefined> {
  const iterator = iterate(items);
  for (let step = iterator.next(); !step.done; step = iterator.next()) {
    scope.runtime.step();
    const inner = scope.inner();
    assign(step.value, inner);
    if (truthy(filter(inner))) yield step.value;
  }
}
