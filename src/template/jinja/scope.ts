// Variables while a template renders: one scope for the template, each loop round, macro call,
// `with`, call block and captured block; an `if` has none of its own.
import type { Runtime } from "./runtime.ts";
import type { Value } from "./values.ts";

export class Scope {
  readonly variables: Map<string, Value>;
  readonly parent: Scope | undefined;
  readonly runtime: Runtime;

  constructor(
    runtime: Runtime,
    parent: Scope | undefined,
    variables: Map<string, Value> = new Map(),
  ) {
    this.runtime = runtime;
    this.parent = parent;
    this.variables = variables;
  }

  inner(): Scope {
    return new Scope(this.runtime, this);
  }

  lookUp(name: string): Value | undefined {
    for (let scope: Scope | undefined = this; scope !== undefined; scope = scope.parent) {
      const value = scope.variables.get(name);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  set(name: string, value: Value): void {
    this.variables.set(name, value);
  }
}

/** Collects printed text; a long rendering stops at the limit instead of filling memory. */
export class Output {
  text = "";
}
