// A mixture of experts ten times larger than the memory it may have: it answers, the same as with
// all the memory, and `plan` says beforehand what will happen.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LayerExpertUse } from "../../src/engine/expert-use.ts";
import { limitMemory, type MemoryLimit } from "./memory-limit.ts";
import { writeSparseDeepseek } from "./sparse-deepseek.ts";
import { cleanEnvironment, tinferCommand } from "./spawn.ts";

const limitBytes = 400e6;
/** Disks may be slow. */
const patienceMs = 60_000;
/** Files in memory have no holes to read: their pages would be memory themselves. */
const tmpfsType = 0x01021994;
const folder = mkdtempSync(join(tmpdir(), "tinfer-larger-"));
const model = join(folder, "model.gguf");
const limit = statfsSync(folder).type === tmpfsType ? undefined : limitMemory(limitBytes);
if (limit === undefined) {
  process.stderr.write("skipped: a model larger than memory (no memory limit possible here)\n");
}

beforeAll(() => {
  if (limit === undefined) return;
  expect(writeSparseDeepseek(model, 4)).toBeGreaterThan(10 * limitBytes);
}, patienceMs);

afterAll(() => {
  limit?.[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
}, patienceMs);

function tinferIn(within: MemoryLimit | undefined, args: readonly string[]): string {
  const command = [...(within?.command ?? []), ...tinferCommand(), ...args];
  const { stdout, stderr, exitCode } = Bun.spawnSync(command, { env: cleanEnvironment() });
  if (exitCode !== 0) throw new Error(`${args.join(" ")}: exit ${exitCode}\n${stderr}`);
  return stdout.toString();
}

test.skipIf(limit === undefined)(
  "answers as with enough memory",
  () => {
    const prompt = ["--raw", "--prompt-token-ids", "1,7,42,99", "--temperature", "0"];
    const rest = ["--max-tokens", "4", "--ignore-eos", "--ctx", "256", "--load", "lazy", "--json"];
    const args = ["run", model, ...prompt, ...rest, "--moe-stats"];
    const answer = JSON.parse(tinferIn(limit, args));
    expect(answer.completionTokenIds).toHaveLength(4);
    expect(limit!.peakBytes() ?? 0).toBeLessThanOrEqual(limitBytes);
    const free = JSON.parse(tinferIn(undefined, args));
    expect(answer.completionTokenIds).toEqual(free.completionTokenIds);
    expect(answer.expertUse).toEqual(free.expertUse);
    // Four tokens of the prompt and three of the answer; the last layer takes output rows alone.
    const tokens = answer.expertUse.layers.map((use: LayerExpertUse) => [use.layer, use.tokens]);
    expect(tokens).toEqual([
      [1, 7],
      [2, 7],
      [3, 4],
    ]);
  },
  patienceMs,
);

test.skipIf(!limit?.isGroup)("plan says that weights are read as they are used", () => {
  const text = tinferIn(limit, ["plan", model, "--ctx", "256"]);
  expect(text).toContain("read from the file as they are used");
  const plan = JSON.parse(tinferIn(limit, ["plan", model, "--ctx", "256", "--json"]));
  expect(plan.weightsFit).toBe(false);
  expect(plan.availableBytes).toBeLessThanOrEqual(limitBytes);
  // Eight of 256 experts a token.
  expect(plan.weightBytesPerToken).toBeLessThan(plan.devices[0].weights / 10);
});
