// Builds libtinfer for this machine's platform; the CPU variants inside are always all of the
// architecture's, so the result runs on any machine of it. Arguments go to `zig build`.
import { join } from "node:path";

const root = join(import.meta.dir, "..");

/** Zig targets with the oldest C library that we promise to run on. */
const hostTargets: Record<string, readonly string[]> = {
  "linux-x64": ["-Dtarget=x86_64-linux-gnu.2.28", "-Dcpu=x86_64_v2"],
  "linux-arm64": ["-Dtarget=aarch64-linux-gnu.2.28", "-Dcpu=baseline"],
  "darwin-x64": ["-Dtarget=x86_64-macos", "-Dcpu=x86_64_v2"],
  "darwin-arm64": ["-Dtarget=aarch64-macos"],
  "win32-x64": ["-Dtarget=x86_64-windows-gnu", "-Dcpu=x86_64_v2"],
};

/** Runs `zig build`; throws with Zig's own words when it fails. */
function zigBuild(args: readonly string[]): void {
  const zig = join(root, "node_modules", `@zigc/${process.platform}-${process.arch}`, "bin", "zig");
  const result = Bun.spawnSync([zig, "build", ...args], { cwd: root, stderr: "pipe", stdout: 2 });
  if (result.exitCode !== 0) throw new Error(`zig build failed:\n${result.stderr.toString()}`);
}

/** Builds the library for this machine, optimised; `args` are further ones of `zig build`. */
export function buildNative(args: readonly string[]): void {
  const host = `${process.platform}-${process.arch}`;
  const target = hostTargets[host];
  if (target === undefined) throw new Error(`no native build for ${host}`);
  zigBuild(["-Doptimize=ReleaseFast", ...target, ...args]);
}

if (import.meta.main) buildNative(process.argv.slice(2));
