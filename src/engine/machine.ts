// What this machine offers a model: cores worth a thread each, and memory that is free to take.
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem } from "node:os";

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Which CPU this is, as far as the system says, and how many cores of it are worth a thread. */
export function cpuModel(): { readonly cpu: string; readonly cores: number } {
  return { cpu: cpus()[0]?.model.trim() || process.arch, cores: defaultNumThreads() };
}

/** One thread per physical core: a second thread on a core shares its vector units. */
export function defaultNumThreads(): number {
  const cpus = availableParallelism();
  if (process.platform !== "linux") return cpus;
  const cores = new Set<string>();
  for (let cpu = 0; cpu < cpus; cpu++) {
    const siblings = readText(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`);
    cores.add(siblings?.trim() ?? `cpu ${cpu}`);
  }
  return Math.max(1, Math.min(cores.size, cpuQuota() ?? cores.size));
}

/** Whole cores that the control group may use, or undefined without a quota. */
function cpuQuota(): number | undefined {
  const [quota, period] = (readText("/sys/fs/cgroup/cpu.max") ?? "").trim().split(" ").map(Number);
  if (quota === undefined || period === undefined || !Number.isFinite(quota)) return undefined;
  return Math.max(1, Math.round(quota / period));
}

/** Bytes that can be taken without swapping, within the control group's limit. */
export function availableMemoryBytes(): number {
  const meminfo = readText("/proc/meminfo");
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(meminfo ?? "")?.[1];
  const machine = available === undefined ? freemem() : Number(available) * 1024;
  const limit = Number(readText("/sys/fs/cgroup/memory.max")?.trim());
  if (!Number.isFinite(limit) || limit === 0) return machine;
  const used = Number(readText("/sys/fs/cgroup/memory.current")?.trim() ?? 0);
  return Math.min(machine, Math.max(0, limit - used));
}

/** The most memory that this process has had resident so far. */
export function processPeakRssBytes(): number {
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readText("/proc/self/status") ?? "")?.[1];
  return peak === undefined ? process.memoryUsage.rss() : Number(peak) * 1024;
}
