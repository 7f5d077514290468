// The shape of a command and the tree that `main.ts` assembles: citty dispatches, flags are ours
// (see flags.ts), help is written from the same declarations.
import { type CommandDef, defineCommand } from "citty";
import { TinferError } from "../core/errors.ts";
import { loadConfig } from "./config-file.ts";
import type { Flags, FlagValues, Positional, Surroundings } from "./flags.ts";
import { environmentName, messageInFlags, parseFlags } from "./flags.ts";
import { out } from "./terminal.ts";

export interface Command {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly summary: string;
  readonly positionals: readonly Positional[];
  readonly flags: Flags;
  /** Command lines with a word on what each does. */
  readonly examples: readonly (readonly [line: string, meaning: string])[];
  run(values: FlagValues): Promise<void>;
}

/** The citty command of a tinfer command; `checkConfig` sees the config file before it runs. */
export function toCitty(
  command: Command,
  checkConfig: (config: Surroundings["config"]) => void,
): CommandDef {
  return defineCommand({
    meta: { name: command.name, description: command.summary },
    async run({ rawArgs }) {
      if (rawArgs.some((arg, i) => isHelp(arg) && !rawArgs.slice(0, i).includes("--"))) {
        out(helpText(command));
        return;
      }
      const surroundings = { environment: process.env, config: loadConfig(process.env) };
      checkConfig(surroundings.config);
      const values = parseFlags(command.flags, command.positionals, rawArgs, surroundings);
      try {
        await command.run(values);
      } catch (error) {
        throw withOrigins(error, values);
      }
    },
  });
}

/** The error with what set a flag in the place of the flag: the variable or the config key. */
function withOrigins(error: unknown, values: FlagValues): unknown {
  if (!(error instanceof TinferError)) return error;
  const { code, hint, cause } = error;
  const message = messageInFlags(error).replaceAll(/--([a-z][a-z-]*)/g, (flag, name: string) => {
    return values.declares(name) ? values.origin(name) : flag;
  });
  if (message === error.message) return error;
  return new TinferError(code, message, { cause, ...(hint === undefined ? {} : { hint }) });
}

export function isHelp(arg: string): boolean {
  return arg === "--help" || arg === "-h";
}

function flagLine(name: string, flag: Flags[string]): string {
  const short = flag.short === undefined ? "    " : `-${flag.short}, `;
  const value = flag.choices?.join("|") ?? flag.placeholder ?? "VALUE";
  return `  ${short}--${name}${flag.kind === "boolean" ? "" : ` ${value}`}`;
}

function flagNotes(name: string, flag: Flags[string]): string {
  const defaulted = flag.default === undefined ? "" : `default ${JSON.stringify(flag.default)}`;
  const repeat = flag.kind === "list" ? "repeatable" : "";
  const notes = [defaulted, repeat].filter((note) => note !== "").join(", ");
  return `${flag.description}${notes === "" ? "" : ` (${notes})`} [${environmentName(name)}]`;
}

/** The text of `tinfer COMMAND --help`. */
export function helpText(command: Command): string {
  const positionals = command.positionals.map(({ name, required, rest }) => {
    const text = rest ? `${name}…` : name;
    return required ? text : `[${text}]`;
  });
  const usage = ["tinfer", command.name, ...positionals, "[flags]"].join(" ");
  const lines = [command.summary, "", `Usage: ${usage}`, ""];
  for (const { name, description } of command.positionals) {
    lines.push(`  ${name.padEnd(12)} ${description}`);
  }
  if (command.positionals.length > 0) lines.push("");
  lines.push("Flags:");
  for (const [name, flag] of Object.entries(command.flags)) {
    lines.push(flagLine(name, flag), `        ${flagNotes(name, flag)}`);
  }
  lines.push("  -h, --help", "        this text", "", "Examples:");
  for (const [line, meaning] of command.examples) lines.push(`  ${line}`, `        ${meaning}`);
  return lines.join("\n");
}
