// Expert use as people see it: `bench --moe-stats`, `run --moe-stats` and /stats in a chat.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchmarkRecord } from "../../src/engine/benchmark.ts";
import type { ExpertUse } from "../../src/engine/expert-use.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { tinyModel as expertModel, tinyMixes } from "../kernel/tiny-model.ts";
import { tinfer, tinferJson } from "./spawn.ts";
import { tinyModel } from "./tiny-model.ts";

setDefaultTimeout(60_000);

/** As the tiny model has them. */
const [numLayers, numExperts, numUsed] = [2, 5, 2];
let folder = "";
let experts = "";
let dense = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-expert-use-"));
  experts = join(folder, "experts.gguf");
  dense = join(folder, "dense.gguf");
  const template = "{% for m in messages %}{{ m.content }}{% endfor %}";
  const words = tinyModel({ template });
  writeGguf(dense, words);
  // The dense model's tokenizer, for which the vocabularies are alike.
  const { metadata, tensors } = expertModel("experts", tinyMixes["experts"]!);
  const own = [...metadata].filter(([key]) => !key.startsWith("tokenizer."));
  const tokenizer = [...words.metadata].filter(([key]) => key.startsWith("tokenizer."));
  writeGguf(experts, { metadata: [...own, ...tokenizer], tensors });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every token chose as many experts as it should, and the figures are of these counts. */
function expectUse({ layers }: ExpertUse, tokens: readonly number[]): void {
  expect(layers.map((use) => [use.layer, use.tokens])).toEqual(
    tokens.map((count, layer) => [layer, count]),
  );
  for (const { counts, tokens: routed, numExpertsPerToken, balance, variation } of layers) {
    expect(numExpertsPerToken).toBe(numUsed);
    expect(counts).toHaveLength(numExperts);
    expect(counts.reduce((a, b) => a + b, 0)).toBe(routed * numUsed);
    expect(Math.max(...counts)).toBeLessThanOrEqual(routed);
    const shares = counts.map((count) => count / (routed * numUsed)).filter((share) => share > 0);
    const entropy = -shares.reduce((sum, share) => sum + share * Math.log(share), 0);
    expect(balance).toBeCloseTo(entropy / Math.log(numExperts), 10);
    const squares = counts.map((count) => ((count * numExperts) / (routed * numUsed) - 1) ** 2);
    expect(variation).toBeCloseTo(Math.sqrt(squares.reduce((a, b) => a + b, 0) / numExperts), 10);
  }
}

test("bench --moe-stats counts all runs of each test, and those alone", async () => {
  const tests = ["-p", "12", "-n", "5", "-d", "0,40", "-b", "1,2", "-r", "2"];
  const run = (threads: string) =>
    tinferJson<BenchmarkRecord[]>([
      ...["bench", experts, ...tests, "--moe-stats", "--threads", threads],
    ]);
  const records = await run("1");
  expect(records.map(({ test }) => test)).toEqual(new Array(4).fill(["pp12", "tg5"]).flat());
  const runs = 3;
  for (const { test, batch, expertUse } of records) {
    // A prompt goes through the last layer's experts with its last token alone.
    const first = runs * batch * (test === "pp12" ? 12 : 5);
    const last = test === "pp12" ? runs * batch : first;
    expectUse(expertUse!, [first, last]);
  }
  const again = await run("3");
  expect(again.map(({ expertUse }) => expertUse)).toEqual(records.map((r) => r.expertUse));
  const [plain] = await tinferJson<BenchmarkRecord[]>(["bench", experts, ...tests, "-r", "1"]);
  expect(plain!.expertUse).toBeUndefined();
});

test("bench --moe-stats prints a table per test in every form", async () => {
  const tests = ["-p", "8", "-n", "3", "-d", "9", "-b", "2", "-r", "1"];
  const args = ["bench", experts, ...tests, "--moe-stats", "--output"];
  const [text, markdown, csv] = await Promise.all(
    ["table", "md", "csv"].map(async (form) => (await tinfer([...args, form])).stdout),
  );
  const total = /^all layers: balance [01]\.\d{3}, variation \d\.\d\d$/gm;
  for (const output of [text!, markdown!]) {
    for (const name of ["pp8", "tg3"])
      expect(output).toContain(`${name}, depth 9, batch 2: expert`);
    expect(output.match(total)).toHaveLength(2);
  }
  expect(text!.match(/^ {2}layer +tokens +used +balance/gm)).toHaveLength(2);
  expect(text).toMatch(/^ {2}0 +32 +\d\/5 +[01]\.\d{3} +\d\.\d\d +\d: [\d.]+ %/m);
  expect(markdown!.match(/\n\n\| layer \| tokens \|.+\n\| --- .+\n\| 0 \| \d+ \|/g)).toHaveLength(
    2,
  );
  const [header, ...rows] = csv!.trim().split("\n");
  expect(header!.split(",")).toContain("expertUse");
  expect(rows).toHaveLength(2);
});

test("a model without experts is said to have none, before anything is measured", async () => {
  const bench = await tinfer(["bench", dense, "-p", "8", "-r", "1", "--moe-stats"]);
  const run = await tinfer(["run", dense, "a", "-n", "2", "--moe-stats"]);
  for (const { stdout, stderr, exitCode } of [bench, run]) {
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 2 });
    expect(stderr).toContain("--moe-stats: this model has no experts");
    expect(stderr).not.toContain("pp8");
  }
});

test("/stats in a chat says how many experts were used, and how evenly", async () => {
  const sampling = ["--temperature", "0", "--max-tokens", "6", "--ignore-eos"];
  const { expertUse } = await tinferJson<{ expertUse: ExpertUse }>([
    ...["run", experts, "abcd", ...sampling, "--moe-stats"],
  ]);
  const chat = await tinfer(["chat", experts, ...sampling], { stdin: "/stats\nabcd\n/stats\n" });
  expect(chat.exitCode).toBe(0);
  const rows = [...chat.stdout.matchAll(/^ {2}experts +(.+)\n {2}balance +([\d.]+) of 1/gm)];
  // Nothing was routed before the first answer.
  expect(rows).toHaveLength(1);
  const used = expertUse.layers.flatMap(({ counts }) => counts).filter((count) => count > 0);
  const total = numLayers * numExperts;
  expect(rows[0]![1]).toBe(`${used.length} of ${total} used in ${numLayers} layers`);
  expect(rows[0]![2]).toBe(expertUse.balance.toFixed(3));
  const other = await tinfer(["chat", dense, ...sampling], { stdin: "abcd\n/stats\n" });
  expect(other.stdout).toContain("KV blocks");
  expect(other.stdout).not.toMatch(/experts|balance/);
});
