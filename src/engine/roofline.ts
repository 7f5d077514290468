// The roofline report of a benchmark: per kind of op the time it took, the least time that this
// machine's limits allow for the bytes it moves and the operations it computes, and what bounds it.
import type { OpTimes } from "../backend/op-times.ts";
import { median } from "../core/median.ts";
import type { PlanLimits } from "../plan/arena.ts";
import type { Plan } from "../plan/builder.ts";
import type { MachineLimits } from "./machine-limits.ts";
import { costOf, groupNames, type OpCost, type StepShape } from "./op-cost.ts";

/** What takes an op's least time. */
export type Bound = "read" | "cache" | "int8" | "bf16" | "f32";

export interface RooflineRow {
  readonly name: string;
  /** Milliseconds of one repetition, and the least that the limits allow. */
  readonly ms: number;
  readonly ceilingMs: number;
  /** ceilingMs / ms */
  readonly share: number;
  readonly readBytes: number;
  readonly operations: number;
  /** Of all threads' time, what they spent at barriers. */
  readonly waitingShare: number;
  readonly bound: Bound;
  /** For people, e.g. "read bandwidth 93 %". */
  readonly boundBy: string;
}

export interface RooflineReport {
  readonly limits: MachineLimits;
  /**
   * 1, or how far the best run went beyond what the probes had found: the limits above are already
   * raised by it, because what was reached is possible.
   */
  readonly raisedBy: number;
  readonly measuredTokensPerSecond: number;
  readonly ceilingTokensPerSecond: number;
  readonly share: number;
  /**
   * The share of what the limits would allow with the bytes per second that were read right before
   * and after each run, on average: the median of the runs. Where the host's other guests take
   * memory bandwidth by turns, the best read of all is out of reach for any run.
   */
  readonly shareBeside: number;
  readonly boundBy: string;
  /** Largest first; the last is what no op accounts for. */
  readonly rows: readonly RooflineRow[];
  readonly advice: readonly string[];
}

/** One test as it ran; `times` are summed over all runs. */
export interface MeasuredTest {
  readonly plan: Plan;
  readonly kvTypes: Pick<PlanLimits, "kvTypeK" | "kvTypeV">;
  readonly steps: readonly StepShape[];
  readonly times: OpTimes;
  /** Of one run. */
  readonly numTokens: number;
  /** What each run took, and the bytes per second that were read beside it. */
  readonly runs: readonly { readonly ms: number; readonly readBytesPerSecond: number }[];
}

interface Sum {
  ms: number;
  ceilingMs: number;
  readBytes: number;
  operations: number;
  waitingMs: number;
  numOps: number;
  readonly boundMs: Record<Bound, number>;
}

const emptySum = (): Sum => ({
  ...{ ms: 0, ceilingMs: 0, readBytes: 0, operations: 0, waitingMs: 0, numOps: 0 },
  boundMs: { read: 0, cache: 0, int8: 0, bf16: 0, f32: 0 },
});

/** The least milliseconds of an op, and what takes them. */
function ceilingOf(cost: OpCost, limits: MachineLimits): { ms: number; bound: Bound } {
  const { int8, bf16, f32 } = cost.operations;
  const { peaks } = limits;
  const candidates: [Bound, number][] = [
    ["read", (cost.weightBytes + cost.kvBytes) / limits.readBytesPerSecond],
    ["cache", cost.activationBytes / limits.activationBytesPerSecond],
    ["int8", int8 / peaks.int8],
    // Without the instruction BF16 is widened.
    ["bf16", bf16 / Math.max(peaks.bf16, peaks.f32)],
    ["f32", f32 / peaks.f32],
  ];
  const [bound, seconds] = candidates.reduce((a, b) => (b[1] > a[1] ? b : a));
  return { ms: seconds * 1000, bound };
}

/** The report before advice; `names` are the plan's ops grouped for reading. */
function sumGroups(test: MeasuredTest, limits: MachineLimits): Map<string, Sum> {
  const { plan, times, runs, kvTypes } = test;
  const names = groupNames(plan);
  const groups = new Map<string, Sum>();
  plan.ops.forEach((op, index) => {
    const name = names[index]!;
    const sum = groups.get(name) ?? emptySum();
    groups.set(name, sum);
    const ms = times.wallMs(index) / runs.length;
    sum.ms += ms;
    sum.waitingMs += ms * times.waitingShare(index);
    for (const step of test.steps) {
      const cost = costOf(op, step, kvTypes);
      const ceiling = ceilingOf(cost, limits);
      sum.ceilingMs += ceiling.ms;
      sum.boundMs[ceiling.bound] += ceiling.ms;
      sum.readBytes += cost.weightBytes + cost.kvBytes;
      const { int8, bf16, f32 } = cost.operations;
      sum.operations += int8 + bf16 + f32;
      sum.numOps++;
    }
  });
  return groups;
}

const boundNames: Readonly<Record<Bound, string>> = {
  read: "read bandwidth",
  cache: "cache bandwidth",
  int8: "int8",
  bf16: "bf16",
  f32: "f32",
};

const percent = (share: number) => `${Math.round(share * 100)} %`;

/** Below this the start of an op and its barrier are most of it. */
const shortOpMs = 0.005;

function describeBound(sum: Sum, bound: Bound, share: number): string {
  const named = `${boundNames[bound]} ${percent(share)}`;
  if (share >= 0.5) return named;
  const waiting = sum.ms === 0 ? 0 : sum.waitingMs / sum.ms;
  if (waiting >= 0.25) return `barriers ${percent(waiting)}, ${named}`;
  return sum.ms / sum.numOps < 4 * shortOpMs ? `latency, ${named}` : named;
}

function makeRow(name: string, sum: Sum): RooflineRow {
  const bounds = Object.entries(sum.boundMs) as [Bound, number][];
  const [bound] = bounds.reduce((a, b) => (b[1] > a[1] ? b : a));
  const share = sum.ms === 0 ? 0 : sum.ceilingMs / sum.ms;
  return {
    ...{ name, ms: sum.ms, ceilingMs: sum.ceilingMs, share },
    ...{ readBytes: sum.readBytes, operations: sum.operations },
    waitingShare: sum.ms === 0 ? 0 : sum.waitingMs / sum.ms,
    bound,
    boundBy: describeBound(sum, bound, share),
  };
}

const total = (rows: readonly RooflineRow[], field: "ms" | "ceilingMs") =>
  rows.reduce((sum, row) => sum + row[field], 0);

/** The limits with all rates times `factor`. */
function raise(limits: MachineLimits, factor: number): MachineLimits {
  const { peaks } = limits;
  return {
    ...limits,
    readBytesPerSecond: limits.readBytesPerSecond * factor,
    activationBytesPerSecond: limits.activationBytesPerSecond * factor,
    peaks: { int8: peaks.int8 * factor, bf16: peaks.bf16 * factor, f32: peaks.f32 * factor },
  };
}

export function makeRoofline(
  test: MeasuredTest,
  probed: MachineLimits,
  adviceFor: (report: Omit<RooflineReport, "advice">) => string[],
): RooflineReport {
  const rowsAt = (limits: MachineLimits) => {
    return [...sumGroups(test, limits)].map(([name, sum]) => makeRow(name, sum));
  };
  const probedMs = total(rowsAt(probed), "ceilingMs");
  const runMs = test.runs.map(({ ms }) => ms);
  const bestMs = Math.min(...runMs);
  const medianMs = median(runMs);
  const raisedBy = Math.max(1, probedMs / bestMs);
  const limits = raisedBy === 1 ? probed : raise(probed, raisedBy);
  const rows = rowsAt(limits).toSorted((a, b) => b.ms - a.ms);
  const ceilingMs = Math.min(total(rows, "ceilingMs"), bestMs);
  const meanMs = runMs.reduce((sum, ms) => sum + ms, 0) / runMs.length;
  const outsideMs = Math.max(0, meanMs - total(rows, "ms"));
  const outside = makeRow("between steps", { ...emptySum(), ms: outsideMs, numOps: 1 });
  const besideShares = test.runs.map(({ ms, readBytesPerSecond }) => {
    return total(rowsAt({ ...limits, readBytesPerSecond }), "ceilingMs") / ms;
  });
  const bounds = new Map<Bound, number>();
  for (const row of rows) bounds.set(row.bound, (bounds.get(row.bound) ?? 0) + row.ceilingMs);
  const [bound] = [...bounds].reduce((a, b) => (b[1] > a[1] ? b : a));
  const share = ceilingMs / medianMs;
  const report = {
    ...{ limits, raisedBy, share, shareBeside: median(besideShares) },
    measuredTokensPerSecond: (test.numTokens * 1000) / medianMs,
    ceilingTokensPerSecond: (test.numTokens * 1000) / ceilingMs,
    boundBy: `${boundNames[bound]} ${percent(share)}`,
    rows: [...rows, { ...outside, boundBy: "" }],
  };
  return { ...report, advice: adviceFor(report) };
}
