// `tinfer doctor`: what of this machine will be used and why not the rest, and every setting with
// its source.
import { existsSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { cacheFolder } from "../core/cache-folder.ts";
import { listTunings, type StoredTuning } from "../engine/tuning-file.ts";
import { ModelStore } from "../store/store.ts";
import type { Command } from "./command.ts";
import { configPath, loadConfig } from "./config-file.ts";
import type { FlagValues } from "./flags.ts";
import { type MachineReport, reportMachine } from "./machine-report.ts";
import { modelFlags } from "./model-flags.ts";
import { reportSettings, type SettingsReport } from "./settings-report.ts";
import { formatTable, oneLine } from "./table.ts";
import { bold, dim, formatBytes, out, outJson } from "./terminal.ts";

interface StoreReport {
  readonly folder: string;
  readonly models: number;
  readonly bytes: number;
  readonly freeBytes: number | null;
}

/** `commands` are all of tinfer's, for their flags; asked for when the command runs. */
export function makeDoctor(commands: () => readonly Command[]): Command {
  return {
    name: "doctor",
    summary: "What of this machine will be used, why not the rest, and the effective settings.",
    positionals: [],
    flags: {
      cpu: modelFlags["cpu"]!,
      json: { kind: "boolean", description: "one JSON document", default: false },
    },
    examples: [
      ["tinfer doctor", "CPU variant, memory, library, settings"],
      ["TINFER_CPU=v3 tinfer doctor", "with a variant forced: it says if that can run"],
      ["tinfer doctor --json", "to attach to a bug report"],
    ],
    run: (values) => doctorCommand(values, commands()),
  };
}

async function doctorCommand(values: FlagValues, commands: readonly Command[]): Promise<void> {
  const { env } = process;
  const { problem, ...machine } = reportMachine(values.text("cpu"));
  const reported = reportSettings(commands, { environment: env, config: loadConfig(env) });
  const problems = problem === undefined ? reported.problems : [problem, ...reported.problems];
  const settings = { ...reported, problems };
  const path = configPath(env);
  const config = { path, exists: existsSync(path) };
  const store = reportStore();
  const tuning = { folder: cacheFolder(), files: listTunings() };
  if (values.boolean("json")) {
    outJson({ ...machine, store, config, tuning, ...settings });
    return;
  }
  printMachine(machine);
  const free = store.freeBytes === null ? "" : `, ${formatBytes(store.freeBytes)} free`;
  const models = `${store.models} models, ${formatBytes(store.bytes)}${free}`;
  printSection("Files", [
    ["store", `${store.folder} (${models})`],
    ["config", config.exists ? config.path : `${config.path} (none: all defaults)`],
  ]);
  printSection("Tuning", tuningRows(tuning.files));
  printSettings(settings);
}

/** What was found on this machine; other machines' and versions' files are counted. */
function tuningRows(files: readonly StoredTuning[]): string[][] {
  const ours = files.flatMap(({ content, isOurs }) => (content && isOurs ? [content] : []));
  const rows = ours.map(({ key, tuning }) => {
    const fields = Object.entries(tuning).map(([name, value]) => `${name} ${value}`);
    const { weightType, interleaved, cpuVariant, numThreads } = key;
    const weights = interleaved ? `${weightType}, interleaved,` : weightType;
    return [`${weights} ${cpuVariant} ${numThreads} threads`, fields.join(", ")];
  });
  if (rows.length === 0)
    rows.push(["none yet", "found once, while idle in chat and serve, or by bench"]);
  const unreadable = files.filter(({ content }) => content === undefined);
  for (const { path } of unreadable) rows.push(["ignored", `${path} cannot be read`]);
  const foreign = files.length - ours.length - unreadable.length;
  if (foreign > 0) rows.push(["ignored", `${foreign} of other machines or versions`]);
  return rows;
}

function reportStore(): StoreReport {
  const store = new ModelStore();
  const models = store.list();
  const bytes = models.reduce((sum, model) => sum + model.bytes, 0);
  return { folder: store.folder, models: models.length, bytes, freeBytes: freeBytes(store.folder) };
}

/** Of the file system that the folder is on, or will be on once it is made. */
function freeBytes(folder: string): number | null {
  let existing = folder;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  try {
    const { bavail, bsize } = statfsSync(existing);
    return bavail * bsize;
  } catch {
    return null;
  }
}

function printSection(title: string, rows: readonly (readonly string[])[]): void {
  out(bold(title));
  for (const line of formatTable(rows)) out(line);
}

function printMachine({ os, cpu, memory, library, gpus }: Omit<MachineReport, "problem">): void {
  const variants = cpu.variants.map(({ name, available, reason }) => {
    if (name === cpu.variant) return ["", `${name}: used`];
    return ["", `${name}: ${available ? "runs here too" : `not used: ${reason}`}`];
  });
  const { totalBytes, availableBytes, cgroupLimitBytes: limit } = memory;
  const limited = limit === null ? "" : `, limited to ${formatBytes(limit)} by the control group`;
  printSection("Machine", [
    ["system", os],
    ["cpu", `${cpu.model}, ${cpu.logicalCpus} logical CPUs, ${cpu.defaultThreads} threads used`],
    ["variant", `${cpu.variant} (of ${cpu.variants.map(({ name }) => name).join(", ")})`],
    ...variants,
    ["memory", `${formatBytes(availableBytes)} available of ${formatBytes(totalBytes)}${limited}`],
    ["huge pages", memory.hugePages],
    ["library", `${library.origin} (interface ${library.abiVersion})`],
    ["gpu", `none of ${gpus.map(({ name }) => name).join(", ")}: ${gpus[0]!.reason}`],
  ]);
}

function printSettings({ settings, problems }: SettingsReport): void {
  const rows = settings
    .filter(({ value, source }) => value !== null || source !== "default")
    .map(({ flag, value, source, variable, commands }) => {
      const origin = source === "environment" ? variable : source;
      const shown = oneLine(typeof value === "string" ? value : JSON.stringify(value), 60);
      const users = dim(commands.join(", "));
      return [flag, shown, source === "default" ? dim(origin) : bold(origin), users];
    });
  printSection("Settings", rows);
  if (problems.length > 0)
    printSection(
      "Problems",
      problems.map((problem) => [problem]),
    );
}
