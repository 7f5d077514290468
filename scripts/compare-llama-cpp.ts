// Compares tinfer with llama.cpp on the same files, threads and lengths: single runs of both in
// turn, medians, and the ratio per test. llama.cpp runs through a native `llama-bench` given by
// LLAMA_BENCH=path (prompt and generation), or through the node-llama-cpp package in the folder
// NODE_LLAMA_CPP (prompt only: it adds about 10 ms to each generated token).
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import type { BenchmarkRecord } from "../src/engine/benchmark.ts";

const root = join(import.meta.dir, "..");
const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    shape: { type: "string", default: "llama-3.2-1b" },
    types: { type: "string", default: "q4_0,q8_0,q4_k_m" },
    model: { type: "string", multiple: true, default: [] },
    threads: { type: "string", default: "2" },
    "prompt-tokens": { type: "string", short: "p", default: "512" },
    "generate-tokens": { type: "string", short: "n", default: "64" },
    depth: { type: "string", short: "d", default: "0" },
    rounds: { type: "string", short: "r", default: "5" },
    folder: { type: "string", default: join(tmpdir(), "tinfer-compare") },
    keep: { type: "boolean", default: false },
    output: { type: "string" },
  },
});

interface Rates {
  readonly prompt: number | undefined;
  readonly generate: number | undefined;
}
type Engine = (path: string, threads: number) => Rates;

const lengths = ["-p", values["prompt-tokens"], "-n", values["generate-tokens"]];
const depth = ["-d", values.depth];

function runJson(command: readonly string[]): unknown {
  const result = Bun.spawnSync([...command], { cwd: root, stderr: "pipe" });
  if (result.exitCode === 0) return JSON.parse(result.stdout.toString());
  throw new Error(`${command[0]} failed:\n${result.stderr.toString().slice(-2000)}`);
}

const tinferCommand = [process.execPath, join(root, "src", "main.ts"), "bench"];

const tinfer: Engine = (path, threads) => {
  const settings = ["-t", String(threads), "-r", "1", "--json"];
  const command = [...tinferCommand, path, ...lengths, ...depth, ...settings];
  const records = runJson(command) as BenchmarkRecord[];
  const rate = (prefix: string) => {
    return records.find((record) => record.test.startsWith(prefix))?.tokensPerSecond;
  };
  return { prompt: rate("pp"), generate: rate("tg") };
};

interface LlamaBenchRow {
  readonly n_prompt: number;
  readonly n_gen: number;
  readonly avg_ts: number;
}

/** Both settings of flash attention run; the better one of each test counts for llama.cpp. */
function llamaBench(program: string): Engine {
  return (path, threads) => {
    const settings = ["-t", String(threads), "-r", "1", "-fa", "0,1", "-o", "json"];
    const rows = runJson([program, "-m", path, ...lengths, ...depth, ...settings]);
    const best = (wanted: (row: LlamaBenchRow) => boolean) => {
      const rates = (rows as LlamaBenchRow[]).filter(wanted).map((row) => row.avg_ts);
      return rates.length === 0 ? undefined : Math.max(...rates);
    };
    return { prompt: best((row) => row.n_gen === 0), generate: best((row) => row.n_prompt === 0) };
  };
}

function nodeLlamaCpp(folder: string): Engine {
  const program = join(import.meta.dir, "judge-node-llama-cpp.mjs");
  return (path, threads) => {
    const command = ["node", program, folder, path, String(threads), values["prompt-tokens"]];
    const { tokensPerSecond } = runJson(command) as { tokensPerSecond: number };
    return { prompt: tokensPerSecond, generate: undefined };
  };
}

function chooseJudge(): Engine {
  const program = process.env["LLAMA_BENCH"];
  if (program !== undefined) return llamaBench(program);
  const folder = process.env["NODE_LLAMA_CPP"];
  if (folder !== undefined) return nodeLlamaCpp(folder);
  throw new Error("set LLAMA_BENCH to a llama-bench program or NODE_LLAMA_CPP to a package folder");
}

function median(numbers: readonly (number | undefined)[]): number | undefined {
  const sorted = numbers.filter((n) => n !== undefined).toSorted((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const upper = sorted[sorted.length >> 1]!;
  return (upper + sorted[(sorted.length - 1) >> 1]!) / 2;
}

/** The files to compare on, as name and path; made from the shape unless models are given. */
function openFiles(): { name: string; path: string; made: boolean }[] {
  const given = values.model.map((path) => ({ name: basename(path, ".gguf"), path, made: false }));
  if (given.length > 0) return given;
  mkdirSync(values.folder, { recursive: true });
  return values.types.split(",").map((type) => {
    const path = join(values.folder, `${values.shape}-${type}.gguf`);
    const shape = ["--shape", values.shape, "--type", type, "--save-shape", path];
    if (!existsSync(path))
      runJson([...tinferCommand, ...shape, "-p", "1", "-n", "0", "-r", "1", "--json"]);
    return { name: `${values.shape} ${type}`, path, made: true };
  });
}

const judge = chooseJudge();
const rows: string[] = [];
for (const { name, path, made } of openFiles()) {
  for (const threads of values.threads.split(",").map(Number)) {
    const own: Rates[] = [];
    const other: Rates[] = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      own.push(tinfer(path, threads));
      other.push(judge(path, threads));
    }
    for (const test of ["prompt", "generate"] as const) {
      const a = median(own.map((rates) => rates[test]));
      const b = median(other.map((rates) => rates[test]));
      if (a === undefined || b === undefined) continue;
      const ratio = median(own.map((rates, i) => rates[test]! / other[i]![test]!))!;
      const figures = [a, b, ratio].map((figure) => figure.toFixed(2));
      rows.push(`| ${[name, threads, test, ...figures].join(" | ")} |`);
      process.stderr.write(`${rows.at(-1)}\n`);
    }
  }
  if (made && !values.keep) rmSync(path);
}

const commit = Bun.spawnSync(["git", "rev-parse", "--short", "HEAD"], { cwd: root });
const report = [
  `# tinfer and llama.cpp, ${new Date().toISOString().slice(0, 10)}`,
  "",
  `Machine: ${cpus()[0]?.model}, ${cpus().length} cores. Commit ${commit.stdout.toString().trim()}.`,
  `Prompt ${values["prompt-tokens"]}, generation ${values["generate-tokens"]}, depth ${values.depth};`,
  `medians of ${values.rounds} interleaved single runs, tokens per second; ratio = median of ratios.`,
  `Repeat: LLAMA_BENCH=… bun scripts/compare-llama-cpp.ts --threads ${values.threads}`,
  "",
  "| model | threads | test | tinfer | llama.cpp | ratio |",
  "| --- | --- | --- | --- | --- | --- |",
  ...rows,
  "",
].join("\n");
if (values.output === undefined) process.stdout.write(report);
else await Bun.write(values.output, report);
