// What `tinfer doctor` says of the machine: CPU and its variants, memory, huge pages, the native
// library, and which devices will be used or why not.
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { availableMemoryBytes, defaultNumThreads } from "../engine/machine.ts";
import { chooseVariant, cpuReport } from "../native/cpu-report.ts";
import { libraryOrigin } from "../native/library.ts";

interface Variant {
  readonly name: string;
  /** Names of /proc/cpuinfo that it needs beyond the variant before it. */
  readonly features: readonly string[];
}

/** All variants in the library, most portable first; the conditions of kernels/dispatch.zig. */
const variantsOf: Readonly<Record<string, readonly Variant[]>> = {
  x64: [
    { name: "v2", features: [] },
    { name: "v3", features: ["avx2", "fma", "f16c", "bmi1", "bmi2"] },
    {
      name: "v4",
      features: [
        ...["avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl", "avx512vbmi"],
        ...["avx512_vbmi2", "gfni", "avx512_vnni", "avx512_bf16"],
      ],
    },
  ],
  arm64: [
    { name: "neon", features: [] },
    { name: "dotprod", features: ["asimddp", "asimdhp"] },
    { name: "i8mm", features: ["i8mm", "bf16"] },
  ],
};

export interface MachineReport {
  /** A forced variant that does not run here. */
  readonly problem: string | undefined;
  readonly os: string;
  readonly cpu: {
    readonly model: string;
    readonly variant: string;
    readonly variants: readonly { name: string; available: boolean; reason: string | null }[];
    readonly logicalCpus: number;
    readonly defaultThreads: number;
  };
  readonly memory: {
    readonly totalBytes: number;
    readonly availableBytes: number;
    /** Limit of the control group, where there is one. */
    readonly cgroupLimitBytes: number | null;
    readonly hugePages: string;
  };
  readonly library: { readonly origin: string; readonly abiVersion: number };
  readonly gpus: readonly { name: string; available: boolean; reason: string | null }[];
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

/** `forced`: the variant that TINFER_CPU or the config asks for. */
export function reportMachine(forced: string | undefined): MachineReport {
  const report = cpuReport();
  const cannotRun = forced !== undefined && forced !== "" && !report.variants.includes(forced);
  return {
    problem: cannotRun ? `CPU variant ${forced} does not run here` : undefined,
    os: `${osName()} ${process.arch}`,
    cpu: {
      model: cpus()[0]?.model.trim() || cpuModel() || "unknown",
      variant: report.variants[chooseVariant(cannotRun ? undefined : forced, report)]!,
      variants: describeVariants(report.variants),
      logicalCpus: availableParallelism(),
      defaultThreads: defaultNumThreads(),
    },
    memory: {
      totalBytes: totalmem(),
      availableBytes: availableMemoryBytes(),
      cgroupLimitBytes: cgroupLimit(),
      hugePages: hugePages(),
    },
    library: libraryOrigin(),
    gpus: ["cuda", "metal", "webgpu"].map((name) => ({
      name,
      available: false,
      reason: "this version of tinfer has no GPU backend: it computes on the CPU",
    })),
  };
}

function osName(): string {
  const named = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(readText("/etc/os-release") ?? "")?.[1];
  const kernel = `${process.platform} ${release()}`;
  return named === undefined ? kernel : `${named}, ${kernel}`;
}

/** Some ARM kernels name no model; the implementer's code is better than nothing. */
function cpuModel(): string | undefined {
  const text = readText("/proc/cpuinfo") ?? "";
  const [implementer, part] = ["CPU implementer", "CPU part"].map(
    (key) => new RegExp(`^${key}\\s*: (.*)$`, "m").exec(text)?.[1],
  );
  return implementer && `implementer ${implementer}, part ${part ?? "unknown"}`;
}

function describeVariants(runnable: readonly string[]) {
  const flags = /^(?:flags|Features)\s*: (.*)$/m.exec(readText("/proc/cpuinfo") ?? "")?.[1];
  const present = new Set(flags?.split(/\s+/));
  return (variantsOf[process.arch] ?? []).map(({ name, features }, index, all) => {
    if (runnable.includes(name)) return { name, available: true, reason: null };
    const needed = all.slice(0, index + 1).flatMap((variant) => variant.features);
    const missing = flags === undefined ? [] : needed.filter((feature) => !present.has(feature));
    const reason =
      missing.length > 0
        ? `this CPU or its hypervisor does not offer ${missing.join(", ")}`
        : `it needs ${features.join(", ")}, which the CPU or the operating system does not enable`;
    return { name, available: false, reason };
  });
}

function cgroupLimit(): number | null {
  const limit = Number(readText("/sys/fs/cgroup/memory.max") ?? Number.NaN);
  return Number.isFinite(limit) && limit > 0 ? limit : null;
}

/** The chosen one stands in brackets: "always [madvise] never". */
function hugePages(): string {
  if (process.platform !== "linux") return "left to the operating system";
  const setting = readText("/sys/kernel/mm/transparent_hugepage/enabled");
  const chosen = /\[(\w+)\]/.exec(setting ?? "")?.[1];
  if (chosen === "always" || chosen === "madvise") return `transparent (${chosen}): used`;
  if (chosen === undefined) return "the kernel has no transparent huge pages: not used";
  return `transparent huge pages are off (${chosen}): not used, a few per cent slower`;
}
