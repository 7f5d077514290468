// Runs tinfer as a person would: from source, or the compiled binary that TINFER_BINARY names.
// Each program has an empty home of its own, so that nothing of this machine's user matters.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const root = join(import.meta.dir, "..", "..");

/** The built-in model as a file. */
export const storyModel = join(root, "assets", "stories260K.gguf");

/** The command line's beginning. */
export function tinferCommand(): string[] {
  const binary = process.env["TINFER_BINARY"];
  return binary ? [binary] : [process.execPath, join(root, "src", "main.ts")];
}

export interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  /** As a shell reports it: 128 + number for a program that a signal ended. */
  readonly exitCode: number;
}

export interface SpawnOptions {
  readonly stdin?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
}

const home = mkdtempSync(join(tmpdir(), "tinfer-cli-home-"));
process.on("exit", () => Bun.spawnSync(["rm", "-rf", home]));

/** This process's environment without anything that tinfer reads, and with an empty home. */
export function cleanEnvironment(extra: Readonly<Record<string, string>> = {}) {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(TINFER_|HF_|HUGGING_FACE|XDG_|NO_COLOR|NODE_ENV|CI$)/.test(name),
  );
  return { ...Object.fromEntries(kept), HOME: home, ...extra };
}

export function start(args: readonly string[], options: SpawnOptions = {}) {
  return Bun.spawn([...tinferCommand(), ...args], {
    env: cleanEnvironment(options.env),
    stdin: Buffer.from(options.stdin ?? ""),
    stdout: "pipe",
    stderr: "pipe",
  });
}

/** Runs to the end with `options.stdin` as the piped input. */
export async function tinfer(
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<Finished> {
  const child = start(args, options);
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { stdout, stderr, exitCode: await child.exited };
}

/** The one JSON document of a command that must succeed. */
export async function tinferJson<T>(
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<T> {
  const { stdout, stderr, exitCode } = await tinfer([...args, "--json"], options);
  if (exitCode !== 0) throw new Error(`tinfer ${args.join(" ")}: exit ${exitCode}\n${stderr}`);
  return JSON.parse(stdout) as T;
}
