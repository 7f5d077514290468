// `npm test`: the check, the native code's own tests, then all tiers of `bun test`; ends with one
// line that counts them. Arguments are passed on to `bun test` and then only those tests run.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const args = process.argv.slice(2);
let passed = 0;
let failed = 0;

function runStep(name: string, command: readonly string[]): void {
  process.stderr.write(`test: ${name}\n`);
  const result = Bun.spawnSync([...command], { cwd: root, stdout: 2, stderr: 2 });
  if (result.exitCode === 0) passed++;
  else failed++;
}

if (args.length === 0) {
  runStep("check", [process.execPath, "scripts/check.ts"]);
  runStep("native", [process.execPath, "scripts/build-native.ts", "test"]);
}

const folder = mkdtempSync(join(tmpdir(), "tinfer-test-"));
const report = join(folder, "junit.xml");
const reporter = ["--reporter=junit", `--reporter-outfile=${report}`];
const timeout = ["--timeout", "120000"];
const bunTest = [process.execPath, "test", ...timeout, ...reporter, ...args];
const result = Bun.spawnSync(bunTest, { cwd: root, stdout: 2, stderr: 2 });
const totals = /<testsuites [^>]*>/.exec(readFileSync(report, "utf8"))?.[0] ?? "";
rmSync(folder, { recursive: true });
const count = (name: string) => Number(new RegExp(` ${name}="(\\d+)"`).exec(totals)?.[1] ?? 0);
passed += count("tests") - count("failures") - count("skipped");
failed += count("failures");
// A crash of the runner itself leaves no failure in the report.
if (result.exitCode !== 0 && count("failures") === 0) failed++;
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);
