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
    "kv-type": { type: "string" },
    batch: { type: "string", short: "b" },
    rounds: { type: "string", short: "r", default: "5" },
    folder: { type: "string", default: join(tmpdir(), "tinfer-compare") },
    keep: { type: "boolean", default: false },
    output: { type: "string" },
  },
});

/**
 * Tokens per second by test; `share`: of tinfer's generation in what memory allowed beside it, and
 * `shareOfBest` in the best that was seen.
 */
type Rates = Readonly<Record<string, number | undefined>>;
type Engine = (path: string, threads: number) => Rates;

const lengths = ["-p", values["prompt-tokens"], "-n", values["generate-tokens"]];
const depth = ["-d", values.depth];

function runJson(command: readonly string[]): unknown {
  const result = Bun.spawnSync([...command], { cwd: root, stderr: "pipe" });
  if (result.exitCode === 0) return JSON.parse(result.stdout.toString());
  throw new Error(`${command[0]} failed:\n${result.stderr.toString().slice(-2000)}`);
}

const tinferCommand = [process.execPath, join(root, "src", "main.ts"), "bench"];

const kvType = values["kv-type"];

const tinfer: Engine = (path, threads) => {
  const settings = ["-t", String(threads), "-r", "1", "--json"];
  if (kvType !== undefined) settings.push("--kv-type", kvType);
  const command = [...tinferCommand, path, ...settings];
  if (values.batch !== undefined) {
    const tests = ["-p", "0", "-n", values["generate-tokens"], "-b", values.batch];
    const records = runJson([...command, ...tests]) as BenchmarkRecord[];
    return Object.fromEntries(
      records.map(({ batch, tokensPerSecond }) => [`batch ${batch}`, tokensPerSecond]),
    );
  }
  const records = runJson([...command, ...lengths, ...depth, "--roofline"]) as BenchmarkRecord[];
  const find = (prefix: string) => records.find((record) => record.test.startsWith(prefix));
  const generate = find("tg");
  return {
    prompt: find("pp")?.tokensPerSecond,
    generate: generate?.tokensPerSecond,
    share: generate?.roofline?.shareBeside,
    shareOfBest: generate?.roofline?.share,
  };
};

interface LlamaBenchRow {
  readonly n_prompt: number;
  readonly n_gen: number;
  readonly avg_ts: number;
}

/**
 * Both settings of flash attention run at depth 0, the better one of each test counts; with a
 * depth or KV type it is on, which llama.cpp needs there.
 */
function llamaBench(program: string): Engine {
  const isPlain = kvType === undefined && values.depth === "0";
  return (path, threads) => {
    const settings = ["-t", String(threads), "-r", "1", "-fa", isPlain ? "0,1" : "1", "-o", "json"];
    if (kvType !== undefined) settings.push("-ctk", kvType, "-ctv", kvType);
    const rows = runJson([program, "-m", path, ...lengths, ...depth, ...settings]);
    const best = (wanted: (row: LlamaBenchRow) => boolean) => {
      const rates = (rows as LlamaBenchRow[]).filter(wanted).map((row) => row.avg_ts);
      return rates.length === 0 ? undefined : Math.max(...rates);
    };
    return { prompt: best((row) => row.n_gen === 0), generate: best((row) => row.n_prompt === 0) };
  };
}

interface BatchedBenchRow {
  readonly pl: number;
  readonly speed_tg: number;
}

/** Tokens per second of all sequences, which start with 16 tokens each. */
function llamaBatchedBench(program: string, batch: string): Engine {
  const most = Math.max(...batch.split(",").map(Number));
  const generated = Number(values["generate-tokens"]);
  return (path, threads) => {
    const sizes = ["-npp", "16", "-ntg", String(generated), "-npl", batch];
    const context = ["-c", String(most * (generated + 64)), "-fa", "on"];
    const output = ["--output-format", "jsonl"];
    const command = [program, "-m", path, "-t", String(threads), ...context, ...sizes, ...output];
    const result = Bun.spawnSync(command, { stderr: "ignore" });
    const lines = result.stdout.toString().split("\n");
    const rows = lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
    return Object.fromEntries(
      (rows as BatchedBenchRow[]).map(({ pl, speed_tg }) => [`batch ${pl}`, speed_tg]),
    );
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
  if (values.batch !== undefined) {
    const batched = process.env["LLAMA_BATCHED_BENCH"];
    if (batched !== undefined) return llamaBatchedBench(batched, values.batch);
    throw new Error("set LLAMA_BATCHED_BENCH to a llama-batched-bench program");
  }
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
    for (const test of Object.keys(other[0]!)) {
      const a = median(own.map((rates) => rates[test]));
      const b = median(other.map((rates) => rates[test]));
      if (a === undefined || b === undefined) continue;
      const ratio = median(own.map((rates, i) => rates[test]! / other[i]![test]!))!;
      const figures = [a, b, ratio].map((figure) => figure.toFixed(2));
      const shares = ["share", "shareOfBest"].flatMap((name) => {
        const share = test === "generate" ? median(own.map((rates) => rates[name])) : undefined;
        return share === undefined ? [] : [`${(100 * share).toFixed(0)} %`];
      });
      figures.push(shares.join(" / "));
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
  `medians of ${values.rounds} interleaved single runs, tokens per second; ratio = median of ratios;`,
  "share: of tinfer's generation in what memory allowed right before and after it, on average,",
  "and in the best that was seen.",
  `Repeat: LLAMA_BENCH=… bun scripts/compare-llama-cpp.ts --threads ${values.threads}`,
  "",
  "| model | threads | test | tinfer | llama.cpp | ratio | share |",
  "| --- | --- | --- | --- | --- | --- | --- |",
  ...rows,
  "",
].join("\n");
if (values.output === undefined) process.stdout.write(report);
else await Bun.write(values.output, report);
