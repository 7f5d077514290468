// Limits of control groups, from files as both versions of them write.
import { expect, test } from "bun:test";
import { cpuQuota, groupMemoryBytes } from "../../src/engine/control-group.ts";
import { parseNumberList } from "../../src/engine/machine.ts";

const from = (files: Readonly<Record<string, string>>) => (path: string) => files[path];
const group = "/sys/fs/cgroup";

test("version 2: the tightest limit from the own group up to the root", () => {
  const read = from({
    "/proc/self/cgroup": "0::/user/app\n",
    [`${group}/user/app/cpu.max`]: "max 100000\n",
    [`${group}/user/cpu.max`]: "250000 100000\n",
    [`${group}/user/app/memory.max`]: "max\n",
    [`${group}/user/memory.max`]: "1000000\n",
    [`${group}/user/memory.current`]: "900000\n",
    [`${group}/user/memory.stat`]: "anon 1\ninactive_file 300000\nactive_file 200000\nfile 9\n",
    [`${group}/memory.max`]: "5000000\n",
    [`${group}/memory.current`]: "100\n",
  });
  expect(cpuQuota(read)).toBe(2.5);
  // The pages of files count as free: 1000000 - (900000 - 500000).
  expect(groupMemoryBytes(read)).toBe(600_000);
});

test("version 1: one tree per controller; its largest number is no limit", () => {
  const files = {
    "/proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box\n1:name=systemd:/\n0::/\n",
    [`${group}/cpu,cpuacct/box/cpu.cfs_quota_us`]: "150000\n",
    [`${group}/cpu,cpuacct/box/cpu.cfs_period_us`]: "100000\n",
    [`${group}/cpu,cpuacct/cpu.cfs_quota_us`]: "-1\n",
    [`${group}/cpu,cpuacct/cpu.cfs_period_us`]: "100000\n",
    [`${group}/memory/box/memory.limit_in_bytes`]: "9223372036854771712\n",
    [`${group}/memory/memory.limit_in_bytes`]: "2000\n",
    [`${group}/memory/memory.usage_in_bytes`]: "500\n",
  };
  expect(cpuQuota(from(files))).toBe(1.5);
  expect(groupMemoryBytes(from(files))).toBe(1500);
});

test("no groups, no limits", () => {
  expect(cpuQuota(from({}))).toBeUndefined();
  expect(groupMemoryBytes(from({ "/proc/self/cgroup": "0::/\n" }))).toBeUndefined();
});

test("lists of CPUs and nodes", () => {
  expect(parseNumberList("0-3,8,10-11")).toEqual([0, 1, 2, 3, 8, 10, 11]);
  expect(parseNumberList("0")).toEqual([0]);
  expect(parseNumberList("")).toEqual([]);
});
