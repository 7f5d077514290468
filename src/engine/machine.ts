// What this machine offers a model: cores worth a thread each, and memory that is free to take.
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem } from "node:os";
import { cpuQuota, groupMemoryBytes } from "./control-group.ts";

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

/** The numbers in a list as the kernel writes it: "0-3,8". */
export function parseNumberList(text: string): number[] {
  return text.split(",").flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    if (part.trim() === "" || first === undefined || last === undefined) return [];
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** CPUs that this process may run on. */
export function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readText("/proc/self/status") ?? "")?.[1];
  if (list !== undefined) return parseNumberList(list);
  return Array.from({ length: availableParallelism() }, (_, cpu) => cpu);
}

/** As many threads as kernels/pool.zig has places for. */
export const maxThreads = 256;

/**
 * One thread per physical core that is open to the process: a second thread on a core shares its
 * vector units, and time beyond a quota stops all of them.
 */
export function defaultNumThreads(): number {
  const cores = new Set<string>();
  for (const cpu of allowedCpus()) {
    const siblings = readText(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`);
    cores.add(siblings?.trim() ?? `cpu ${cpu}`);
  }
  return threadsFor(cores.size, cpuQuota(readText));
}

export function threadsFor(numCores: number, quota: number = numCores): number {
  return Math.max(1, Math.min(numCores, Math.round(quota), maxThreads));
}

/** Memory nodes of the machine. */
export function memoryNodes(): number[] {
  return parseNumberList(readText("/sys/devices/system/node/online")?.trim() ?? "0");
}

/** Bytes that can be taken without swapping, within the control group's limit. */
export function availableMemoryBytes(): number {
  const meminfo = readText("/proc/meminfo");
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(meminfo ?? "")?.[1];
  const machine = available === undefined ? freemem() : Number(available) * 1024;
  return Math.min(machine, groupMemoryBytes(readText) ?? machine);
}

/** The most memory that this process has had resident so far. */
export function processPeakRssBytes(): number {
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readText("/proc/self/status") ?? "")?.[1];
  return peak === undefined ? process.memoryUsage.rss() : Number(peak) * 1024;
}

/** What of a range of this process's memory is resident, and of that on huge pages, in bytes. */
export interface RangePages {
  readonly resident: number;
  readonly huge: number;
}

/** As Linux says it, of the mappings that begin in the range; elsewhere zeros. */
export function rangePages(address: number, bytes: number): RangePages {
  let isInside = false;
  let resident = 0;
  let huge = 0;
  for (const line of (readText("/proc/self/smaps") ?? "").split("\n")) {
    const start = /^([0-9a-f]+)-[0-9a-f]+ /.exec(line)?.[1];
    if (start !== undefined) {
      const from = parseInt(start, 16) - address;
      isInside = from >= 0 && from < bytes;
    }
    const [, name, kilobytes] = (isInside && /^(\w+):\s+(\d+) kB/.exec(line)) || [];
    if (name === "Rss") resident += Number(kilobytes) * 1024;
    if (hugePageFields.has(name ?? "")) huge += Number(kilobytes) * 1024;
  }
  return { resident, huge };
}
const hugePageFields = new Set(["AnonHugePages", "FilePmdMapped", "ShmemPmdMapped"]);
