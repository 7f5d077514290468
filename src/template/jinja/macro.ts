// Macros and call blocks: how their arguments bind, and what `caller`, `varargs` and `kwargs`
// see.
import { compileExpression, type Evaluate } from "./compile-expression.ts";
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import type { Scope } from "./scope.ts";
import type { Parameter, Statement } from "./syntax-tree.ts";
import { type Arguments, Callable, given, Tuple, Undefined, type Value } from "./values.ts";

export interface MacroDefinition {
  name: string;
  parameters: readonly { name: string; fallback: Evaluate | undefined }[];
  usesCaller: boolean;
  usesVarargs: boolean;
  usesKwargs: boolean;
  body: (scope: Scope) => string;
}

export function defineMacro(
  name: string,
  parameters: readonly Parameter[],
  statements: readonly Statement[],
  body: (scope: Scope) => string,
): MacroDefinition {
  const names = new Set<string>();
  collectNames(statements, names);
  const isParameter = (special: string) =>
    parameters.some((parameter) => parameterName(parameter) === special);
  const uses = (special: string) => names.has(special) && !isParameter(special);
  return {
    name,
    parameters: parameters.map((parameter) => ({
      name: parameterName(parameter),
      fallback:
        parameter.type === "Identifier" ? undefined : compileExpression(parameter.value, false),
    })),
    usesCaller: uses("caller"),
    usesVarargs: uses("varargs"),
    usesKwargs: uses("kwargs"),
    body,
  };
}

function parameterName(parameter: Parameter): string {
  return parameter.type === "Identifier" ? parameter.value : parameter.key.value;
}

/** Every name that a piece of the tree reads. */
function collectNames(node: unknown, names: Set<string>): void {
  if (Array.isArray(node)) {
    for (const item of node) collectNames(item, names);
  } else if (node instanceof Map) {
    for (const [key, value] of node) collectNames([key, value], names);
  } else if (typeof node === "object" && node !== null) {
    const { type, value } = node as { type?: unknown; value?: unknown };
    if (type === "Identifier" && typeof value === "string") names.add(value);
    else collectNames(Object.values(node), names);
  }
}

/** The macro as a value: its body sees the scope in which it was defined. */
export function createMacro(definition: MacroDefinition, scope: Scope): Callable {
  const attributes = new Map<string, Value>([
    ["name", definition.name],
    ["arguments", new Tuple(definition.parameters.map(({ name }) => name))],
    ["caller", definition.usesCaller],
    ["catch_kwargs", definition.usesKwargs],
    ["catch_varargs", definition.usesVarargs],
  ]);
  const call = (args: Arguments): Value => {
    scope.runtime.step();
    const inner = scope.inner();
    bindArguments(definition, args, inner);
    return definition.body(inner);
  };
  return new Callable(definition.name, call, "Macro", attributes);
}

function bindArguments(definition: MacroDefinition, args: Arguments, scope: Scope): void {
  const { parameters, name } = definition;
  const named = new Map(args.named);
  const pending: { name: string; fallback: Evaluate }[] = [];
  parameters.forEach((parameter, index) => {
    let value = args.positional[index];
    if (value === undefined) {
      value = named.get(parameter.name);
      named.delete(parameter.name);
    }
    if (value === undefined && parameter.fallback !== undefined) {
      pending.push({ name: parameter.name, fallback: parameter.fallback });
    }
    const missing = `parameter '${parameter.name}' was not provided`;
    scope.set(parameter.name, given(value, new Undefined(missing)));
  });
  if (definition.usesCaller) {
    scope.set("caller", given(named.get("caller"), new Undefined("No caller defined")));
    named.delete("caller");
  }
  if (definition.usesKwargs) scope.set("kwargs", Dict.of(named));
  else if (named.size > 0) {
    const [unexpected] = named.keys();
    throw new JinjaError("type", `macro '${name}' takes no keyword argument '${unexpected}'`);
  }
  const rest = args.positional.slice(parameters.length);
  if (definition.usesVarargs) scope.set("varargs", new Tuple(rest));
  else if (rest.length > 0) {
    const most = parameters.length;
    throw new JinjaError("type", `macro '${name}' takes not more than ${most} argument(s)`);
  }
  // A default may refer to the parameters before it.
  for (const { name: parameter, fallback } of pending) scope.set(parameter, fallback(scope));
}
