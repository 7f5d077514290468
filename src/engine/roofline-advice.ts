// What follows from a roofline report for whoever wants more speed: threads, weight type, KV type,
// batch. Only what the figures say; at most two lines.
import type { RooflineReport, RooflineRow } from "./roofline.ts";

export interface AdviceFacts {
  readonly mainType: string;
  readonly weightBytes: number;
  readonly parameters: number;
  readonly numThreads: number;
  /** What would be used without --threads. */
  readonly defaultThreads: number;
  readonly kvType: string;
  /** Sequences side by side, and whether each step makes one token of each. */
  readonly batch: number;
  readonly generates: boolean;
}

const mostLines = 2;
const percent = (share: number) => `${Math.round(share * 100)} %`;

export function adviseOn(report: Omit<RooflineReport, "advice">, facts: AdviceFacts): string[] {
  const rules = [threadAdvice, waitingAdvice, cacheAdvice, typeAdvice, formatAdvice, batchAdvice];
  const lines = rules.map((rule) => rule(report, facts));
  return lines.filter((line) => line !== undefined).slice(0, mostLines);
}

type Rule = (report: Omit<RooflineReport, "advice">, facts: AdviceFacts) => string | undefined;

const sumOf = (rows: readonly RooflineRow[], value: (row: RooflineRow) => number) =>
  rows.reduce((sum, row) => sum + value(row), 0);

/** The share of the least time that the rows of one bound take. */
function boundShare(rows: readonly RooflineRow[], bound: RooflineRow["bound"]): number {
  const all = sumOf(rows, (row) => row.ceilingMs);
  return sumOf(rows, (row) => (row.bound === bound ? row.ceilingMs : 0)) / all;
}

const waitingShare = (rows: readonly RooflineRow[]) =>
  sumOf(rows, (row) => row.waitingShare * row.ms) / sumOf(rows, (row) => row.ms);

/** Of all threads' time; more says that something else than the work takes it. */
const muchWaiting = 0.15;

const threadAdvice: Rule = ({ rows, limits }, { numThreads, defaultThreads }) => {
  if (waitingShare(rows) >= muchWaiting) return undefined;
  if (boundShare(rows, "read") > 0.5) {
    const gain = limits.readBytesPerSecond / limits.oneThreadBytesPerSecond;
    if (numThreads < 2 || gain > 1.15) return undefined;
    return `threads: one thread reads ${percent(1 / gain)} of what ${numThreads} do; fewer would do`;
  }
  if (numThreads >= defaultThreads) return undefined;
  return `threads: ${numThreads} of ${defaultThreads} cores compute; try --threads ${defaultThreads}`;
};

const waitingAdvice: Rule = ({ rows }, { numThreads }) => {
  const waiting = waitingShare(rows);
  if (numThreads < 2 || waiting < muchWaiting) return undefined;
  return `threads: ${percent(waiting)} of their time they wait for each other; other programs use the cores, or the model is too small for ${numThreads}`;
};

const cacheAdvice: Rule = ({ rows }, { kvType }) => {
  const attention = rows.find((row) => row.name === "attention");
  if (attention === undefined || kvType.startsWith("q")) return undefined;
  const share = attention.ms / sumOf(rows, (row) => row.ms);
  if (attention.bound !== "read" || share < 0.25) return undefined;
  return `KV cache: reading it takes ${percent(share)}; --kv-type q8_0 about halves its bytes`;
};

/** About what a weight takes in q4_k_m, scales included. */
const bitsOfQ4 = 4.85;

const typeAdvice: Rule = ({ rows, ceilingTokensPerSecond }, facts) => {
  const bits = (facts.weightBytes * 8) / facts.parameters;
  if (boundShare(rows, "read") < 0.5 || bits < 1.3 * bitsOfQ4) return undefined;
  const faster = (ceilingTokensPerSecond * bits) / bitsOfQ4;
  return `weight type: ${facts.mainType} takes ${bits.toFixed(1)} bits a weight; q4_k_m with ${bitsOfQ4} would raise the ceiling to about ${faster.toFixed(0)} tok/s`;
};

const formatAdvice: Rule = ({ rows, limits }, { mainType }) => {
  const { int8, f32, bf16 } = limits.peaks;
  const own = mainType === "bf16" && bf16 > 0 ? bf16 : f32;
  const isFloat = ["f32", "f16", "bf16"].includes(mainType);
  const computes = boundShare(rows, "f32") + boundShare(rows, "bf16");
  if (!isFloat || computes < 0.5 || int8 < 1.5 * own) return undefined;
  return `weight type: int8 products are ${(int8 / own).toFixed(1)}x as fast here as those of ${mainType}; q8_0 uses them`;
};

const batchAdvice: Rule = ({ rows, limits }, { generates, batch }) => {
  if (!generates || boundShare(rows, "read") < 0.5) return undefined;
  const weights = rows.filter((row) => row.bound === "read" && row.operations > 0);
  const seconds = sumOf(weights, (row) => row.readBytes) / limits.readBytesPerSecond;
  const computed = sumOf(weights, (row) => row.operations) / limits.peaks.int8;
  const largest = Math.floor((batch * seconds) / computed);
  if (!Number.isFinite(largest) || largest < 2 * batch) return undefined;
  return `batch: reading allows about ${largest} sequences side by side (--batch) before computing bounds a step`;
};
