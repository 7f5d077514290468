// What the native library says of this machine's CPU.
import { ptr } from "bun:ffi";
import { TinferError } from "../core/errors.ts";
import { check, native } from "./library.ts";

export interface CpuReport {
  readonly bestVariant: string;
  /** Variants that run here, most portable first. */
  readonly variants: readonly string[];
  readonly numCpus: number;
  /** Native memory is taken in whole pages of this size. */
  readonly pageBytes: number;
}

/** What exports take for the best variant. */
export const bestVariant = 0xffffffff;

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).replace(/\0+$/, "");

export function cpuReport(): CpuReport {
  const bytes = new Uint8Array(88);
  check(native().tinfer_cpu_report(ptr(bytes)), "CPU report");
  const numbers = new DataView(bytes.buffer);
  return {
    bestVariant: text(bytes.subarray(0, 16)),
    variants: text(bytes.subarray(16, 80)).split(","),
    numCpus: numbers.getUint32(80, true),
    pageBytes: numbers.getUint32(84, true),
  };
}

/** Index of the variant that is forced, or of the best one. */
export function chooseVariant(wanted: string | undefined, report = cpuReport()): number {
  if (wanted === undefined || wanted === "") return report.variants.length - 1;
  const index = report.variants.indexOf(wanted);
  if (index >= 0) return index;
  throw new TinferError("usage", `--cpu is '${wanted}', not a CPU variant of this machine`, {
    hint: `it runs: ${report.variants.join(", ")}`,
  });
}
