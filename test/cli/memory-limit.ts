// Runs programs in less memory than the machine has: in a control group of their own, as a
// container would, version 1 or 2, where this process may make one; else with a limit on what they
// take for themselves, which pages of files are not.
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface MemoryLimit extends Disposable {
  /** Starts a program inside: what comes before its own arguments. */
  readonly command: readonly string[];
  /** Whether programs can see the limit, and pages of files count. */
  readonly isGroup: boolean;
  /** The most memory that was in use at once, where that is known. */
  readonly peakBytes: () => number | undefined;
}

/** Per version: where groups are, the limit, and the peak. */
const versions = [
  ["/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"],
  ["/sys/fs/cgroup", "memory.max", "memory.peak"],
] as const;

/** Undefined where neither is possible. */
export function limitMemory(bytes: number): MemoryLimit | undefined {
  for (const [root, limit, peak] of versions) {
    const group = join(root, `tinfer-test-${process.pid}`);
    try {
      mkdirSync(group);
    } catch {
      continue;
    }
    const release = () => rmdirSync(group);
    if (!existsSync(join(group, limit))) {
      release();
      continue;
    }
    writeFileSync(join(group, limit), String(bytes));
    return {
      isGroup: true,
      command: ["sh", "-c", `echo $$ > ${group}/cgroup.procs && exec "$@"`, "sh"],
      peakBytes: () => Number(readFileSync(join(group, peak), "utf8")),
      [Symbol.dispose]: release,
    };
  }
  if (Bun.which("prlimit") === null) return undefined;
  return {
    isGroup: false,
    command: ["prlimit", `--data=${bytes}`],
    peakBytes: () => undefined,
    [Symbol.dispose]: () => {},
  };
}
