// Flags of all commands: declared once as data, read from the command line, the environment
// (`TINFER_<FLAG>`), the config file and the default, in this order. Nothing is ignored: an
// unknown flag, a bad value or a stray argument is a usage error with the nearest match.
import { parseArgs } from "node:util";
import { nearestMatch, TinferError } from "../core/errors.ts";

export interface Flag {
  readonly kind: "text" | "number" | "boolean" | "list";
  /** Shown in help after the flag's name, e.g. "N". */
  readonly placeholder?: string;
  readonly description: string;
  /** Shown in help; `undefined` in the values means "not given". */
  readonly default?: string | number | boolean;
  readonly choices?: readonly string[];
  readonly short?: string;
  /** What other programs call it, for the error that leads from there to here. */
  readonly elsewhere?: readonly string[];
}

export type Flags = Readonly<Record<string, Flag>>;

export interface Positional {
  readonly name: string;
  readonly description: string;
  readonly required: boolean;
  /** Takes all remaining arguments. */
  readonly rest?: boolean;
  /** Flags of other programs in whose place it is. */
  readonly elsewhere?: readonly string[];
}

export type FlagSource = "flag" | "environment" | "config" | "default";

/** Where settings come from beside the command line. */
export interface Surroundings {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly config: Readonly<Record<string, unknown>>;
}

export function environmentName(flag: string): string {
  return `TINFER_${flag.replaceAll("-", "_").toUpperCase()}`;
}

/** An error's message with the flag in the place of the setting that the code names. */
export function messageInFlags({ message, field }: TinferError): string {
  if (field === undefined) return message;
  const flag = field.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return message.replace(field, `--${flag}`);
}

/** The values of a command's flags after parsing, with typed access by flag name. */
export class FlagValues {
  readonly #flags: Flags;
  readonly #values: ReadonlyMap<string, unknown>;
  readonly #sources: ReadonlyMap<string, FlagSource>;
  readonly positionals: readonly string[];

  constructor(
    flags: Flags,
    values: ReadonlyMap<string, unknown>,
    sources: ReadonlyMap<string, FlagSource>,
    positionals: readonly string[],
  ) {
    this.#flags = flags;
    this.#values = values;
    this.#sources = sources;
    this.positionals = positionals;
  }

  #get(name: string): unknown {
    if (this.#flags[name] === undefined) throw new Error(`flag ${name} is not declared`);
    return this.#values.get(name) ?? this.#flags[name].default;
  }

  /** False for a flag that the command does not have. */
  declares(name: string): boolean {
    return this.#flags[name] !== undefined;
  }
  source(name: string): FlagSource {
    return this.#sources.get(name) ?? "default";
  }
  /** Where the value stands, for errors about it. */
  origin(name: string): string {
    const source = this.source(name);
    if (source === "environment") return environmentName(name);
    return source === "config" ? `config key '${name}'` : `--${name}`;
  }
  /** The value whatever its kind. */
  value(name: string): unknown {
    return this.#get(name);
  }
  text(name: string): string | undefined {
    return this.#get(name) as string | undefined;
  }
  number(name: string): number | undefined {
    return this.#get(name) as number | undefined;
  }
  boolean(name: string): boolean {
    return (this.#get(name) as boolean | undefined) ?? false;
  }
  list(name: string): readonly string[] {
    return (this.#get(name) as readonly string[] | undefined) ?? [];
  }
  /** True when line, environment or config set it. */
  isGiven(name: string): boolean {
    return this.#values.has(name);
  }
}

function usage(message: string, hint?: string): TinferError {
  return new TinferError("usage", message, hint === undefined ? {} : { hint });
}

/** Checks one value's kind and choices; `origin` names the flag, variable or key in errors. */
function convert(flag: Flag, value: unknown, origin: string): unknown {
  if (flag.kind === "list") {
    return (Array.isArray(value) ? value : [value]).map((item) => String(item));
  }
  if (flag.kind === "boolean") {
    if (value === true || ["true", "1", "on"].includes(String(value))) return true;
    if (value === false || ["false", "0", "off"].includes(String(value))) return false;
    throw usage(`${origin} is '${value}', wanted true or false`);
  }
  if (flag.kind === "number") {
    const number = typeof value === "number" ? value : Number(String(value).trim() || "x");
    if (!Number.isNaN(number)) return number;
    throw usage(`${origin} is '${value}', wanted a number`);
  }
  const text = String(value);
  if (flag.choices !== undefined && !flag.choices.includes(text)) {
    throw usage(`${origin} is '${text}'`, `choose from ${flag.choices.join(", ")}`);
  }
  return text;
}

export function parseFlags(
  flags: Flags,
  positionals: readonly Positional[],
  args: readonly string[],
  { environment, config }: Surroundings,
): FlagValues {
  const line = parseLine(flags, positionals, args);
  checkPositionals(positionals, line.positionals);
  const values = new Map<string, unknown>();
  const sources = new Map<string, FlagSource>();
  const set = (name: string, value: unknown, source: FlagSource, origin: string) => {
    values.set(name, convert(flags[name]!, value, origin));
    sources.set(name, source);
  };
  for (const name of Object.keys(flags)) {
    const variable = environmentName(name);
    const fromEnvironment = environment[variable];
    const fromConfig = config[name];
    if (line.values.has(name)) set(name, line.values.get(name), "flag", `--${name}`);
    else if (fromEnvironment !== undefined && fromEnvironment !== "") {
      set(name, fromEnvironment, "environment", variable);
    } else if (fromConfig !== undefined) set(name, fromConfig, "config", `config key '${name}'`);
  }
  return new FlagValues(flags, values, sources, line.positionals);
}

/** Splits the command line by node's parser; `--no-x` negates a boolean. */
function parseLine(flags: Flags, places: readonly Positional[], args: readonly string[]) {
  const options = Object.fromEntries(
    Object.entries(flags).map(([name, flag]) => [
      name,
      {
        type: flag.kind === "boolean" ? ("boolean" as const) : ("string" as const),
        ...(flag.short === undefined ? {} : { short: flag.short }),
      },
    ]),
  );
  const { tokens } = parseArgs({
    args: joinValues(flags, places, args),
    options,
    strict: false,
    tokens: true,
    allowPositionals: true,
  });
  const values = new Map<string, unknown>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const { rawName, name, value } = token;
    if (!isKnown(flags, name)) throw unknownFlag(rawName, flags, places);
    setOption(flags, values, rawName, name, value);
  }
  return { values, positionals };
}

/** `--flag -1` and `--flag ""` give the value to the flag, which node's parser leaves open. */
function joinValues(
  flags: Flags,
  places: readonly Positional[],
  args: readonly string[],
): string[] {
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--") return [...joined, ...args.slice(i)];
    // Names such as -ngl, which would else be -n with the value "gl".
    if (/^-[a-z]{2,}$/.test(arg) && meaningHere(arg.slice(1), flags, places) !== undefined) {
      throw unknownFlag(arg, flags, places);
    }
    const name = longName(flags, arg);
    const flag = name === undefined ? undefined : flags[name];
    if (flag === undefined || flag.kind === "boolean" || i + 1 === args.length) joined.push(arg);
    else joined.push(`--${name}=${args[++i]}`);
  }
  return joined;
}

/** The declared flag that `arg` is, without a value attached. */
function longName(flags: Flags, arg: string): string | undefined {
  if (arg.startsWith("--")) return flags[arg.slice(2)] === undefined ? undefined : arg.slice(2);
  if (!/^-[a-zA-Z]$/.test(arg)) return undefined;
  return Object.keys(flags).find((name) => flags[name]!.short === arg[1]);
}

/** Declared, or `no-` before a declared boolean. */
function isKnown(flags: Flags, name: string): boolean {
  return flags[name] !== undefined || flags[negatedName(name) ?? ""]?.kind === "boolean";
}

function negatedName(name: string): string | undefined {
  return name.startsWith("no-") ? name.slice(3) : undefined;
}

function setOption(
  flags: Flags,
  values: Map<string, unknown>,
  rawName: string,
  name: string,
  value: string | undefined,
): void {
  const flag = flags[name];
  if (flag === undefined) {
    values.set(negatedName(name)!, false);
    return;
  }
  if (flag.kind !== "boolean" && value === undefined) {
    throw usage(`${rawName} needs a value`, flag.description);
  }
  if (flag.kind === "list") values.set(name, [...((values.get(name) as string[]) ?? []), value]);
  else values.set(name, value ?? true);
}

/** What does here what other programs have the flag `name` for. */
function meaningHere(
  name: string,
  flags: Flags,
  places: readonly Positional[],
): string | undefined {
  const isMeant = ({ elsewhere }: Flag | Positional) => elsewhere?.includes(name);
  const place = places.find(isMeant);
  if (place !== undefined) return `here it is ${place.name}, without a flag: ${place.description}`;
  const here = Object.entries(flags).find(([, flag]) => isMeant(flag));
  return here && `here it is --${here[0]}: ${here[1].description}`;
}

/** The error says what to do instead. */
function unknownFlag(rawName: string, flags: Flags, places: readonly Positional[]): TinferError {
  const name = rawName.replace(/^--?/, "");
  const nearest = nearestMatch(name, Object.keys(flags));
  const guess = nearest ? `did you mean --${nearest}?` : "see --help for the flags";
  return usage(`unknown flag ${rawName}`, meaningHere(name, flags, places) ?? guess);
}

function checkPositionals(wanted: readonly Positional[], given: readonly string[]): void {
  const missing = wanted.find((entry, index) => entry.required && given[index] === undefined);
  if (missing !== undefined) {
    throw usage(`${missing.name} is missing`, `${missing.name}: ${missing.description}`);
  }
  if (wanted.at(-1)?.rest || given.length <= wanted.length) return;
  throw usage(`unexpected argument '${given[wanted.length]}'`, "quote text that has spaces");
}
