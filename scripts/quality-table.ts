// What each weight type costs: quantises a model to every mix and compares its predictions with the
// model's own over a text. Prints the table of docs/weight-types.md.
//
//   bun scripts/quality-table.ts MODEL [TEXT]
//
// Without TEXT the model writes two, with fixed seeds: one to measure importance on, one to score.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { PerplexityResult } from "../src/engine/perplexity.ts";
import { mixNames } from "../src/weights/quantize-mix.ts";

const main = join(import.meta.dir, "..", "src", "main.ts");
const numStories = 24;

function tinfer(...args: string[]): string {
  const child = Bun.spawnSync([process.execPath, main, ...args], { stderr: "pipe" });
  if (child.exitCode === 0) return child.stdout.toString();
  throw new Error(`tinfer ${args.join(" ")}\n${child.stderr.toString()}`);
}

function perplexity(...args: string[]): PerplexityResult {
  return JSON.parse(tinfer("perplexity", ...args, "--kv-type", "f32", "--json"));
}

/** Text that the model itself finds likely, which is what it will be used for. */
function write(model: string, path: string, firstSeed: number): void {
  const stories = Array.from({ length: numStories }, (_, index) => {
    const seed = String(firstSeed + index);
    const sampling = ["--raw", "--temperature", "0.8", "--seed", seed];
    return tinfer("run", model, "Once upon a time", ...sampling, "--max-tokens", "400");
  });
  writeFileSync(path, stories.map((story) => `Once upon a time${story}`).join(""));
}

function row(model: string, folder: string, mix: string, imatrix: string | undefined): string {
  const path = join(folder, "quantised.gguf");
  const flags = imatrix === undefined ? [] : ["--imatrix", imatrix];
  const report = JSON.parse(
    tinfer("quantize", model, path, mix, "--allow-requantize", "--json", ...flags),
  ) as { bytes: number };
  const { divergence: d } = perplexity(path, "--kl-base", join(folder, "base.kld"));
  const cells = [
    ...[mix.toUpperCase(), (report.bytes / 1e6).toFixed(2), d!.perplexityRatio.value.toFixed(4)],
    ...[Math.max(0, d!.mean.value).toFixed(5), d!.percentile99.toFixed(4)],
    `${(100 * d!.topAgreement).toFixed(1)} %`,
  ];
  return `| ${cells.join(" | ")} |`;
}

const [model, text] = process.argv.slice(2);
if (model === undefined) throw new Error("usage: bun scripts/quality-table.ts MODEL [TEXT]");
const folder = mkdtempSync(join(tmpdir(), "tinfer-quality-"));
try {
  const path = text ?? join(folder, "stories.txt");
  const measured = text ?? join(folder, "measured.txt");
  if (text === undefined) {
    write(model, path, 0);
    write(model, measured, numStories);
  }
  const base = perplexity(model, path, "--ctx", "256", "--save-logits", join(folder, "base.kld"));
  const imatrix = join(folder, "imatrix.gguf");
  tinfer("imatrix", model, measured, "-o", imatrix, "--ctx", "256");
  const value = `${base.perplexity.value.toFixed(3)} ± ${base.perplexity.error.toFixed(3)}`;
  const bytes = readFileSync(path).length;
  console.log(
    `${basename(model)}: perplexity ${value}, ${base.numScored} tokens, ${bytes} bytes\n`,
  );
  console.log("| type | MB | perplexity ratio | KL mean | KL 99 % | same best token |");
  console.log("|---|---|---|---|---|---|");
  for (const mix of mixNames) {
    // In a model without experts it is Q8_0.
    if (mix === "mxfp4") continue;
    const isSmall = /^(iq|q2)/.test(mix) && !mix.startsWith("iq4");
    console.log(row(model, folder, mix, isSmall ? imatrix : undefined));
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
