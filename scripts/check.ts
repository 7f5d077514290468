// `npm run check`: format, lint, types and the tidy test, in under 20 seconds.
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const bin = (name: string) => join(root, "node_modules", ".bin", name);

const steps: readonly (readonly string[])[] = [
  [process.execPath, "scripts/generate-symbols.ts", "--check"],
  [bin("biome"), "check", "--error-on-warnings"],
  [bin("tsc"), "-p", "."],
  [process.execPath, "test", "test/tidy.test.ts"],
];

let failed = 0;
for (const command of steps) {
  const result = Bun.spawnSync([...command], { cwd: root, stdout: 2, stderr: 2 });
  if (result.exitCode === 0) continue;
  process.stderr.write(`check: ${command.slice(0, 3).join(" ")} failed\n`);
  failed++;
}
process.exit(failed === 0 ? 0 : 1);
