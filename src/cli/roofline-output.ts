// The roofline reports of `tinfer bench --roofline` as text: the machine's limits, a table of what
// each kind of op reached and what bounds it, and advice.
import type { BenchmarkRecord } from "../engine/benchmark.ts";
import type { RooflineReport, RooflineRow } from "../engine/roofline.ts";

const percent = (share: number) => `${(share * 100).toFixed(0)} %`;
const giga = (value: number, digits = 0) => (value / 1e9).toFixed(digits);
/** Three digits that count, for milliseconds from a whole prompt to one sampling. */
const milliseconds = (ms: number) => (ms >= 100 ? ms.toFixed(0) : ms.toPrecision(3));

export const rooflineHeader = [
  "op",
  "ms",
  "of total",
  "least ms",
  "reached",
  "GB",
  "GOP",
  "waiting",
  "bound by",
] as const;

/** One row per kind of op, and the total. */
export function rooflineRows({ rows, share, boundBy }: RooflineReport): string[][] {
  const totalOf = (value: (row: RooflineRow) => number) =>
    rows.reduce((sum, row) => sum + value(row), 0);
  const totalMs = totalOf((row) => row.ms);
  const cells = (row: Omit<RooflineRow, "bound">) => [
    row.name,
    milliseconds(row.ms),
    percent(row.ms / totalMs),
    milliseconds(row.ceilingMs),
    row.ceilingMs === 0 ? "" : percent(row.share),
    giga(row.readBytes, 3),
    giga(row.operations, 1),
    percent(row.waitingShare),
    row.boundBy,
  ];
  const waitingMs = totalOf((row) => row.waitingShare * row.ms);
  const total = {
    ...{ name: "total", ms: totalMs, share, boundBy, waitingShare: waitingMs / totalMs },
    ceilingMs: totalOf((row) => row.ceilingMs),
    readBytes: totalOf((row) => row.readBytes),
    operations: totalOf((row) => row.operations),
  };
  return [...rows, total].map(cells);
}

/** What stands above and below the table. */
export function rooflineText(record: BenchmarkRecord, report: RooflineReport) {
  const { limits, measuredTokensPerSecond: measured, ceilingTokensPerSecond: ceiling } = report;
  const { peaks, oneThreadPeaks: one } = limits;
  const rate = `${measured.toFixed(2)} of at most ${ceiling.toFixed(2)} tok/s`;
  const test = `${record.test}, depth ${record.depth}, batch ${record.batch}`;
  const read = [
    `mapped weights ${giga(limits.weightsBytesPerSecond, 1)}`,
    `huge pages ${giga(limits.hugePagesBytesPerSecond, 1)}`,
    `one thread ${giga(limits.oneThreadBytesPerSecond, 1)}`,
  ];
  const peak = (name: keyof typeof peaks) =>
    peaks[name] > 0 ? [`${name} ${giga(peaks[name])} (one thread ${giga(one[name])})`] : [];
  const raised =
    report.raisedBy > 1
      ? [`the best run was ${percent(report.raisedBy - 1)} faster than the probes: limits raised`]
      : [];
  return {
    above: [
      `${test}: ${rate} (${percent(report.share)}; ${percent(report.shareBeside)} of what was to be had right then), bound by ${report.boundBy}`,
      `limits of ${record.threads} threads: read ${giga(limits.readBytesPerSecond, 1)} GB/s (${read.join(", ")})`,
      `GOP/s: ${[...peak("int8"), ...peak("bf16"), ...peak("f32")].join(", ")}`,
      ...raised,
    ],
    below: report.advice,
  };
}
