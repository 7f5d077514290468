// The forms in which `tinfer bench` prints its records.
import type { BenchmarkRecord } from "../engine/benchmark.ts";
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
      return markdown(rowsOf(records));
    default:
      return table(rowsOf(records));
  }
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

function table(rows: readonly string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    row.map((cell, i) => (i < 3 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ");
  return rows.map(line).join("\n");
}

function markdown([header, ...rows]: readonly string[][]): string {
  const line = (row: readonly string[]) => `| ${row.join(" | ")} |`;
  return [line(header!), line(header!.map(() => "---")), ...rows.map(line)].join("\n");
}

function csv(records: readonly BenchmarkRecord[]): string {
  const cell = (value: unknown) => {
    const text = String(value ?? "");
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const header = Object.keys(records[0]!).join(",");
  return [header, ...records.map((record) => Object.values(record).map(cell).join(","))].join("\n");
}

function sql(records: readonly BenchmarkRecord[]): string {
  const quote = (value: unknown) => {
    if (value === null) return "NULL";
    return typeof value === "number" ? String(value) : `'${String(value).replaceAll("'", "''")}'`;
  };
  const columns = Object.entries(records[0]!).map(([name, value]) => {
    return `${name} ${typeof value === "string" ? "TEXT" : "REAL"}`;
  });
  const inserts = records.map((record) => {
    return `INSERT INTO bench VALUES (${Object.values(record).map(quote).join(", ")});`;
  });
  return [`CREATE TABLE IF NOT EXISTS bench (${columns.join(", ")});`, ...inserts].join("\n");
}
