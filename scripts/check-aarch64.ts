// `bun scripts/check-aarch64.ts`: builds libtinfer for aarch64 and runs recorded steps on its
// kernels under qemu-user, on a CPU of each variant: all results must have this machine's bits.
// `--short` takes fewer cases and CPUs, and does not build the library itself.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { goldenFolder } from "../test/golden-folder.ts";
import { exactPrefix, recordCases } from "../test/kernel/recorded-cases.ts";

const root = join(import.meta.dir, "..");
const prefix = join(root, "zig-out", "aarch64");

/** qemu's CPU models, and the best variant that each must be given by kernels/dispatch.zig. */
const cpuModels = [
  { model: "max", variants: ["neon", "dotprod", "i8mm"], short: true },
  { model: "neoverse-n1", variants: ["neon", "dotprod"], short: false },
  { model: "cortex-a53", variants: ["neon"], short: false },
] as const;

/** What golden logits in F32 may differ by (test/golden/architectures.test.ts). */
const mostNmse = 1e-6;

export function findQemu(): string | undefined {
  return Bun.which("qemu-aarch64-static") ?? Bun.which("qemu-aarch64") ?? undefined;
}

export const installHint = "install qemu-user, e.g. apt-get install qemu-user-static";

/** One line of kernels/replay.zig. */
interface Replayed {
  readonly name: string;
  readonly variant: string;
  readonly numThreads: number;
  readonly count: number;
  readonly numDifferent: number;
  readonly nmse: number;
}

function parseLine(line: string): Replayed {
  const [path, variant, ...numbers] = line.split(" ");
  const [numThreads, count, numDifferent, nmse] = numbers.map(Number);
  if (nmse === undefined) throw new Error(`replay said: ${line}`);
  const name = basename(path!);
  return {
    name,
    variant: variant!,
    numThreads: numThreads!,
    count: count!,
    numDifferent: numDifferent!,
    nmse,
  };
}

function replay(qemu: string, model: string, files: readonly string[]): Replayed[] {
  const program = join(prefix, "bin", "replay");
  const result = Bun.spawnSync([qemu, "-cpu", model, program, ...files], { stderr: "pipe" });
  const text = result.stderr.toString().trim();
  if (result.exitCode !== 0 && result.exitCode !== 1) {
    throw new Error(`replay on ${model} ended with ${result.exitCode}:\n${text}`);
  }
  return text.split("\n").map(parseLine);
}

/** ELF header: bytes 18 and 19 are the machine, 183 = AArch64. */
function isAarch64Library(path: string): boolean {
  const bytes = readFileSync(path);
  return bytes.toString("latin1", 1, 4) === "ELF" && bytes.readUInt16LE(18) === 183;
}

function zigBuild(args: readonly string[]): void {
  const zig = join(root, "node_modules", `@zigc/${process.platform}-${process.arch}`, "bin", "zig");
  const options = ["-Doptimize=ReleaseFast", "-Dcpu=baseline", "--prefix", prefix];
  const result = Bun.spawnSync([zig, "build", ...args, ...options], { cwd: root, stderr: "pipe" });
  if (result.exitCode !== 0) throw new Error(`zig build failed:\n${result.stderr.toString()}`);
}

/** The program alone, or also the library as it would be shipped. */
function build(short: boolean): void {
  if (!short) {
    zigBuild(["-Dtarget=aarch64-linux-gnu.2.28"]);
    const library = join(prefix, "lib", "libtinfer.so");
    if (!isAarch64Library(library)) throw new Error(`${library} is not for aarch64`);
  }
  zigBuild(["replay", "-Dtarget=aarch64-linux-musl"]);
}

function problemsOf(model: string, expected: readonly string[], results: readonly Replayed[]) {
  const problems: string[] = [];
  const variants = [...new Set(results.map((result) => result.variant))];
  if (variants.join() !== expected.join()) {
    problems.push(`${model} ran ${variants.join(", ")}, not ${expected.join(", ")}`);
  }
  for (const { name, variant, numThreads, count, numDifferent, nmse } of results) {
    const where = `${model} ${variant} ${name}, ${numThreads} threads`;
    if (numDifferent > 0) problems.push(`${where}: ${numDifferent} of ${count} values differ`);
    if (!name.startsWith(exactPrefix)) continue;
    if (!(nmse <= mostNmse)) problems.push(`${where}: NMSE ${nmse} against the golden logits`);
  }
  return problems;
}

export interface Aarch64Report {
  readonly problems: readonly string[];
  /** One line per CPU model and variant. */
  readonly lines: readonly string[];
}

/** Throws when something cannot be built or run; results that differ are in the report. */
export function checkAarch64(qemu: string, short: boolean): Aarch64Report {
  build(short);
  const folder = mkdtempSync(join(tmpdir(), "tinfer-replay-"));
  try {
    const golden = short ? undefined : goldenFolder("golden models on aarch64");
    const files = recordCases(folder, { short, golden });
    const problems: string[] = [];
    const lines: string[] = [];
    for (const { model, variants, short: isShort } of cpuModels) {
      if (short && !isShort) continue;
      const results = replay(qemu, model, files);
      problems.push(...problemsOf(model, variants, results));
      for (const variant of variants) {
        const own = results.filter((result) => result.variant === variant);
        const count = own.reduce((sum, result) => sum + result.count, 0);
        const different = own.reduce((sum, result) => sum + result.numDifferent, 0);
        const exact = own.filter(({ name }) => name.startsWith(exactPrefix));
        const worst = Math.max(0, ...exact.map(({ nmse }) => nmse));
        const golden = exact.length === 0 ? "" : `, golden NMSE at most ${worst}`;
        lines.push(
          `${model} ${variant}: ${files.length} recordings, ${count} values, ` +
            `${different} differ from this CPU's${golden}`,
        );
      }
    }
    return { problems, lines };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function main(): number {
  const qemu = findQemu();
  if (qemu === undefined) {
    process.stderr.write(`check-aarch64: qemu-aarch64 is missing; ${installHint}\n`);
    return 1;
  }
  const { problems, lines } = checkAarch64(qemu, process.argv.includes("--short"));
  for (const line of lines) process.stdout.write(`${line}\n`);
  for (const problem of problems) process.stderr.write(`${problem}\n`);
  return problems.length === 0 ? 0 : 1;
}

if (import.meta.main) process.exit(main());
