// The forms in which `tinfer bench` prints its records.
import type { BenchmarkRecord } from "../engine/benchmark.ts";
import {
  expertUseLegend,
  expertUseRows,
  expertUseText,
  expertUseTotal,
} from "./expert-use-output.ts";
import { rooflineHeader, rooflineRows, rooflineText } from "./roofline-output.ts";
import { formatBytes } from "./terminal.ts";

export const outputFormats = ["table", "md", "json", "jsonl", "csv", "sql"] as const;

export function formatRecords(records: readonly BenchmarkRecord[], format: string): string {
  switch (format) {
    case "json":
      return JSON.stringify(records, null, 2);
    case "jsonl":
      return records.map((record) => JSON.stringify(record)).join("\n");
    case "csv":
      return csv(records);
    case "sql":
      return sql(records);
    case "md":
      return [
        markdown(rowsOf(records)),
        ...records.flatMap(rooflineMarkdown),
        ...records.flatMap(expertUseMarkdown),
      ].join("\n");
    default:
      return [
        table(rowsOf(records), 3),
        ...records.flatMap(rooflineTable),
        ...records.flatMap(expertUseTable),
      ].join("\n");
  }
}

/** Which of the tests, where several have its name. */
function fullName({ test, depth, batch }: BenchmarkRecord): string {
  const parts = [test];
  if (depth > 0) parts.push(`depth ${depth}`);
  if (batch > 1) parts.push(`batch ${batch}`);
  return parts.join(", ");
}

function expertUseTable(record: BenchmarkRecord): string[] {
  const { expertUse } = record;
  return expertUse === undefined ? [] : ["", `${fullName(record)}: ${expertUseText(expertUse)}`];
}

function expertUseMarkdown(record: BenchmarkRecord): string[] {
  const { expertUse } = record;
  if (expertUse === undefined) return [];
  const title = `${fullName(record)}: ${expertUseLegend}`;
  return ["", title, "", markdown(expertUseRows(expertUse)), "", expertUseTotal(expertUse)];
}

function rooflineTable(record: BenchmarkRecord): string[] {
  const { roofline } = record;
  if (roofline === undefined) return [];
  const { above, below } = rooflineText(record, roofline);
  const rows = [[...rooflineHeader], ...rooflineRows(roofline)];
  const last = rooflineHeader.length - 1;
  return ["", ...above, table(rows, 1, last), ...below.map((line) => `→ ${line}`)];
}

function rooflineMarkdown(record: BenchmarkRecord): string[] {
  const { roofline } = record;
  if (roofline === undefined) return [];
  const { above, below } = rooflineText(record, roofline);
  const rows = [[...rooflineHeader], ...rooflineRows(roofline)];
  const list = (lines: readonly string[]) => lines.map((line) => `- ${line}`);
  return ["", ...list(above), "", markdown(rows), "", ...list(below)];
}

/** The columns a person reads, header first. */
function rowsOf(records: readonly BenchmarkRecord[]): string[][] {
  const header = [
    "model",
    "size",
    "backend",
    "threads",
    "test",
    "depth",
    "batch",
    "tok/s",
    "±",
    "GB/s",
    "GOP/s",
  ];
  const rows = records.map((record) => [
    record.model,
    formatBytes(record.bytes),
    `${record.backend} ${record.cpuVariant}`,
    String(record.threads),
    record.test,
    String(record.depth),
    String(record.batch),
    record.tokensPerSecond.toFixed(2),
    record.tokensPerSecondSd.toFixed(2),
    record.gigabytesPerSecond.toFixed(1),
    record.gigaopsPerSecond.toFixed(0),
  ]);
  return [header, ...rows];
}

/** Columns before `numbersFrom`, and from `textFrom` on, start at the left. */
function table(rows: readonly string[][], numbersFrom: number, textFrom = 99): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => {
        const isText = i < numbersFrom || i >= textFrom;
        return isText ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!);
      })
      .join("  ")
      .trimEnd();
  return rows.map(line).join("\n");
}

function markdown([header, ...rows]: readonly string[][]): string {
  const line = (row: readonly string[]) => `| ${row.join(" | ")} |`;
  return [line(header!), line(header!.map(() => "---")), ...rows.map(line)].join("\n");
}

function csv(records: readonly BenchmarkRecord[]): string {
  const cell = (value: unknown) => {
    if (value === null) return "";
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const header = Object.keys(records[0]!).join(",");
  return [header, ...records.map((record) => Object.values(record).map(cell).join(","))].join("\n");
}

function sql(records: readonly BenchmarkRecord[]): string {
  const quote = (value: unknown) => {
    if (value === null) return "NULL";
    if (typeof value === "number") return String(value);
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    return `'${text.replaceAll("'", "''")}'`;
  };
  const columns = Object.entries(records[0]!).map(([name, value]) => {
    return `${name} ${typeof value === "number" || value === null ? "REAL" : "TEXT"}`;
  });
  const inserts = records.map((record) => {
    return `INSERT INTO bench VALUES (${Object.values(record).map(quote).join(", ")});`;
  });
  return [`CREATE TABLE IF NOT EXISTS bench (${columns.join(", ")});`, ...inserts].join("\n");
}
