// What Tab offers: commands, the names that a command's argument may be, and paths.
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { builtinTemplateNames } from "../template/builtin.ts";
import type { ArgumentKind } from "./command.ts";
import { allCommands } from "./command-list.ts";
import { expandHome } from "./file-commands.ts";
import { settingKeys } from "./settings.ts";

/** The candidates, and the end of the line that they replace: readline's convention. */
export type Completion = [candidates: string[], replaced: string];

export function completeLine(line: string): Completion {
  const match = /^\/(\S*)(\s+)?([\s\S]*)$/.exec(line);
  if (match === null) return [[], line];
  const [, name = "", space, argument = ""] = match;
  if (space === undefined) {
    const names = allCommands.flatMap((c) => [c.name, ...(c.aliases ?? [])]);
    const hits = names.filter((n) => n.startsWith(name.toLowerCase()));
    return [hits.map((hit) => `/${hit} `), line];
  }
  const command = allCommands.find((c) => c.name === name || c.aliases?.includes(name));
  if (command?.completes === undefined) return [[], line];
  return [candidates(command.completes, argument), argument];
}

function candidates(kind: ArgumentKind, argument: string): string[] {
  if (kind === "path") return completePath(argument);
  if (kind === "template") {
    const names = [...builtinTemplateNames(), "auto"].filter((n) => n.startsWith(argument));
    return [...names, ...completePath(argument)];
  }
  const words = kind === "setting" ? settingKeys.map(({ name }) => `${name} `) : kind;
  return words.filter((word) => word.startsWith(argument));
}

function completePath(typed: string): string[] {
  const isFolder = typed === "" || typed.endsWith("/");
  const folder = isFolder ? typed || "." : dirname(typed);
  const start = isFolder ? "" : basename(typed);
  const shown = typed.slice(0, typed.length - start.length);
  let names: string[];
  try {
    names = readdirSync(expandHome(folder === "~" ? "~/" : folder));
  } catch {
    return []; // Not a folder: nothing to offer.
  }
  return names
    .filter((name) => name.startsWith(start) && (start !== "" || !name.startsWith(".")))
    .sort()
    .map((name) => shown + name + (isFolderAt(join(expandHome(folder), name)) ? "/" : ""));
}

function isFolderAt(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
