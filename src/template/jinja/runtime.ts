// What one rendering carries along: the time it sees, its limits, and the tables of filters
// and tests, so that filters like `map` can call others by name.
import { JinjaError } from "./errors.ts";
import { maxSteps } from "./limits.ts";
import type { Arguments, Value } from "./values.ts";

export type Filter = (value: Value, args: Arguments, runtime: Runtime) => Value;
export type Test = (value: Value, args: Arguments, runtime: Runtime) => boolean;

export class Runtime {
  readonly now: Date;
  readonly #filters: ReadonlyMap<string, Filter>;
  readonly #tests: ReadonlyMap<string, Test>;
  #steps = 0;

  constructor(now: Date, filters: ReadonlyMap<string, Filter>, tests: ReadonlyMap<string, Test>) {
    this.now = now;
    this.#filters = filters;
    this.#tests = tests;
  }

  /** Counts one unit of work, so that a template from a stranger's file cannot run forever. */
  step(): void {
    if (++this.#steps > maxSteps) {
      throw new JinjaError("limit", `the template ran more than ${maxSteps} steps`);
    }
  }

  filter(name: string): Filter {
    const filter = this.#filters.get(name);
    if (filter === undefined) throw new JinjaError("runtime", `No filter named '${name}'.`);
    return filter;
  }
  test(name: string): Test {
    const test = this.#tests.get(name);
    if (test === undefined) throw new JinjaError("runtime", `No test named '${name}'.`);
    return test;
  }
  hasFilter(name: string): boolean {
    return this.#filters.has(name);
  }
  hasTest(name: string): boolean {
    return this.#tests.has(name);
  }
}
