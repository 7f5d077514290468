// The effective value of every flag and where it comes from, for `tinfer doctor`; also what is set
// but means nothing to tinfer, so that a misspelt variable is noticed.
import { nearestMatch } from "../core/errors.ts";
import type { Command } from "./command.ts";
import { environmentName, type Flag, parseFlags, type Surroundings } from "./flags.ts";

export interface Setting {
  readonly flag: string;
  readonly variable: string;
  readonly value: unknown;
  readonly source: "environment" | "config" | "default";
  readonly commands: readonly string[];
}

export interface SettingsReport {
  readonly settings: readonly Setting[];
  /** Sentences about variables and keys without effect, or with a value that is refused. */
  readonly problems: readonly string[];
}

/** Variables that are no flags. */
const otherVariables = ["TINFER_HOME", "TINFER_CONFIG"];

export function reportSettings(
  commands: readonly Command[],
  surroundings: Surroundings,
): SettingsReport {
  const flags = flagsOf(commands);
  const problems = new Set<string>();
  const settings: Setting[] = [];
  for (const { name, flag, users } of flags) {
    try {
      const values = parseFlags({ [name]: flag }, [], [], surroundings);
      const source = values.source(name) as Setting["source"];
      const value = values.value(name) ?? null;
      settings.push({
        flag: name,
        variable: environmentName(name),
        value,
        source,
        commands: users,
      });
    } catch (error) {
      problems.add((error as Error).message);
    }
  }
  const names = new Set(flags.map(({ name }) => name));
  for (const problem of unknownNames(names, surroundings)) problems.add(problem);
  return { settings, problems: [...problems] };
}

/** Flags of all commands; one that has several defaults appears once for each. */
function flagsOf(commands: readonly Command[]) {
  const found = new Map<string, { name: string; flag: Flag; users: string[] }>();
  for (const command of commands) {
    for (const [name, flag] of Object.entries(command.flags)) {
      const key = JSON.stringify([name, flag.kind, flag.default ?? null, flag.choices ?? null]);
      const entry = found.get(key) ?? { name, flag, users: [] };
      found.set(key, entry);
      entry.users.push(command.name);
    }
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function unknownNames(flags: ReadonlySet<string>, { environment, config }: Surroundings): string[] {
  const variables = [...[...flags].map(environmentName), ...otherVariables];
  const problems: string[] = [];
  for (const [name, value] of Object.entries(environment)) {
    if (!name.startsWith("TINFER_") || value === undefined || variables.includes(name)) continue;
    problems.push(`${name} has no effect${guess(name, variables)}`);
  }
  return [...problems, ...unknownKeys(flags, config)];
}

/** Sentences about keys of the config file that are no flag of any command. */
export function unknownKeys(flags: ReadonlySet<string>, config: Surroundings["config"]): string[] {
  const unknown = Object.entries(config).filter(([key]) => !flags.has(key));
  return unknown.map(([key, value]) => {
    const isTable = typeof value === "object" && value !== null && !Array.isArray(value);
    if (isTable) return `config table [${key}] has no effect: keys are for all commands`;
    return `config key '${key}' has no effect${guess(key, flags)}`;
  });
}

function guess(name: string, known: Iterable<string>): string {
  const nearest = nearestMatch(name, known);
  return nearest === undefined ? "" : `; did you mean ${nearest}?`;
}
