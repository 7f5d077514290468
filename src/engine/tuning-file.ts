// The tunings found on this machine, one small JSON file each in the cache folder. A file that
// cannot be read or belongs to another machine or version counts as none; `tinfer doctor` names it.
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { isTuning, type Tuning } from "../backend/tuning.ts";
import { cacheFolder } from "../core/cache-folder.ts";
import { cpuModel } from "./machine.ts";

/** What a tuning was found for. */
export interface TuningKey {
  readonly cpu: string;
  readonly cores: number;
  readonly cpuVariant: string;
  readonly numThreads: number;
  /** Quant type of most weights: kernels differ in how fast they read. */
  readonly weightType: string;
  /** Whether weights lay interleaved, for which other kernels are used. */
  readonly interleaved: boolean;
  readonly version: string;
}

export type MachineKey = Pick<TuningKey, "cpu" | "cores" | "version">;

export interface StoredTuning {
  readonly path: string;
  /** undefined = unreadable. */
  readonly content: { readonly key: TuningKey; readonly tuning: Tuning } | undefined;
  /** Whether it was found on this machine by this version. */
  readonly isOurs: boolean;
}

export function machineKey(): MachineKey {
  return { ...cpuModel(), version: manifest.version };
}

/** In one order of fields, so that equal keys are equal texts. */
function keyText(key: TuningKey): string {
  const { cpu, cores, cpuVariant, numThreads, weightType, interleaved, version } = key;
  return JSON.stringify([cpu, cores, cpuVariant, numThreads, weightType, interleaved, version]);
}

function pathOf(key: TuningKey): string {
  const hash = Bun.hash(keyText(key)).toString(16).padStart(16, "0");
  return join(cacheFolder(), `tuning-${hash}.json`);
}

function readContent(path: string): StoredTuning["content"] {
  try {
    const content: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (typeof content !== "object" || content === null) return undefined;
    if (!("key" in content) || !("tuning" in content)) return undefined;
    const { key, tuning } = content;
    if (typeof key !== "object" || key === null || !isTuning(tuning)) return undefined;
    return { key: key as TuningKey, tuning };
  } catch {
    return undefined;
  }
}

export function readTuning(key: TuningKey): Tuning | undefined {
  const content = readContent(pathOf(key));
  return content !== undefined && keyText(content.key) === keyText(key)
    ? content.tuning
    : undefined;
}

/** False where the folder cannot be written: the next start tunes again. */
export function writeTuning(key: TuningKey, tuning: Tuning): boolean {
  const path = pathOf(key);
  const draft = `${path}.${process.pid}`;
  try {
    mkdirSync(cacheFolder(), { recursive: true });
    writeFileSync(draft, `${JSON.stringify({ key, tuning }, null, 2)}\n`);
    // Readers see the old file or the new one.
    renameSync(draft, path);
    return true;
  } catch {
    removeFile(draft);
    return false;
  }
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It was not made, or nothing may be removed there either.
  }
}

export function listTunings(): StoredTuning[] {
  let names: string[];
  try {
    names = readdirSync(cacheFolder()).filter((name) => /^tuning-[0-9a-f]+\.json$/.test(name));
  } catch {
    return [];
  }
  const { cpu, cores, version } = machineKey();
  return names.toSorted().map((name) => {
    const path = join(cacheFolder(), name);
    const content = readContent(path);
    const key = content?.key;
    const isOurs = key?.cpu === cpu && key.cores === cores && key.version === version;
    return { path, content, isOurs };
  });
}
