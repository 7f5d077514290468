// What the control groups around this process let it have, versions 1 and 2. Limits hold for every
// group from the process's own up to the root; what cannot be read limits nothing.

/** Content of a file, or undefined. */
export type ReadText = (path: string) => string | undefined;

const root = "/sys/fs/cgroup";
/** Version 1 writes "no limit" as a number near 2^63. */
const noLimit = 2 ** 60;

/** Folders of the groups that a controller's limits may be in, the process's own first. */
function groupFolders(read: ReadText, controller: string): string[] {
  const folders: string[] = [];
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    const isVersion2 = controllers === "";
    if (!isVersion2 && !controllers.split(",").includes(controller)) continue;
    const mounts = isVersion2 ? [root, `${root}/unified`] : [`${root}/${controllers}`];
    const names = path.split("/").filter((name) => name !== "");
    for (const mount of mounts) {
      for (let depth = names.length; depth >= 0; depth--) {
        folders.push([mount, ...names.slice(0, depth)].join("/"));
      }
    }
  }
  return folders;
}

function number(text: string | undefined): number | undefined {
  const value = Number(text?.trim() || Number.NaN);
  return Number.isFinite(value) && value > 0 && value < noLimit ? value : undefined;
}

/** CPUs' worth of time that the groups allow; undefined: all. */
export function cpuQuota(read: ReadText): number | undefined {
  let least: number | undefined;
  for (const folder of groupFolders(read, "cpu")) {
    const [quota, period] =
      read(`${folder}/cpu.max`)?.split(" ") ??
      ["quota", "period"].map((name) => read(`${folder}/cpu.cfs_${name}_us`));
    const [time, span] = [number(quota), number(period)];
    if (time === undefined || span === undefined) continue;
    least = Math.min(least ?? time / span, time / span);
  }
  return least;
}

/** Bytes that the groups still allow, where pages of files count as free; undefined: any. */
export function groupMemoryBytes(read: ReadText): number | undefined {
  let least: number | undefined;
  for (const folder of groupFolders(read, "memory")) {
    const limit = number(read(`${folder}/memory.max`) ?? read(`${folder}/memory.limit_in_bytes`));
    if (limit === undefined) continue;
    const used =
      number(read(`${folder}/memory.current`) ?? read(`${folder}/memory.usage_in_bytes`)) ?? 0;
    const pages = read(`${folder}/memory.stat`) ?? "";
    const files = [...pages.matchAll(/^(?:in)?active_file (\d+)$/gm)];
    const reclaimable = files.reduce((sum, [, bytes]) => sum + Number(bytes), 0);
    const free = Math.max(0, limit - Math.max(0, used - reclaimable));
    least = Math.min(least ?? free, free);
  }
  return least;
}
