// The config file: `$XDG_CONFIG_HOME/tinfer/config.toml` or `~/.config/tinfer/config.toml`, or
// what TINFER_CONFIG names. Its keys are flag names.
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { TinferError } from "../core/errors.ts";
import { readTextFile } from "./text-input.ts";

export function configPath(environment: Readonly<Record<string, string | undefined>>): string {
  const named = environment["TINFER_CONFIG"];
  if (named !== undefined && named !== "") return named;
  const folder = environment["XDG_CONFIG_HOME"] || join(homedir(), ".config");
  return join(folder, "tinfer", "config.toml");
}

/** The file's keys, or none when it does not exist. */
export function loadConfig(
  environment: Readonly<Record<string, string | undefined>>,
): Readonly<Record<string, unknown>> {
  const path = configPath(environment);
  if (!existsSync(path)) {
    if (!environment["TINFER_CONFIG"]) return {};
    throw new TinferError("notFound", `TINFER_CONFIG names ${path}, which does not exist`);
  }
  const fileHint = "it must be a file that this user may read; TINFER_CONFIG names another one";
  const text = readTextFile(path, `the config file ${path}`, fileHint);
  try {
    return Bun.TOML.parse(text) as Record<string, unknown>;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const hint = "keys are flag names: threads = 4";
    throw new TinferError("usage", `${path} is not valid TOML: ${reason}`, { hint, cause });
  }
}
