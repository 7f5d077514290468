// `tinfer bench`: speed of a model on this machine, as a table or as records for scripts.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { TinferError } from "../core/errors.ts";
import { outputFile } from "../core/output-file.ts";
import { type BenchmarkTest, benchmark } from "../engine/benchmark.ts";
import { optionLimits } from "../engine/model-plan.ts";
import { randomModel } from "../models/shapes.ts";
import { type GgufTensorSource, writeGguf } from "../weights/gguf-writer.ts";
import { formatRecords, outputFormats } from "./bench-output.ts";
import type { Command } from "./command.ts";
import { moeStatsFlag } from "./expert-use-output.ts";
import type { FlagValues } from "./flags.ts";
import { type Interrupt, interruptSignal } from "./interrupt.ts";
import { modelFlags, modelOptions, modelPath, modelPositional } from "./model-flags.ts";
import { out, Progress, say } from "./terminal.ts";

const { ctx: _ctx, ...benchModelFlags } = modelFlags;

export const bench: Command = {
  name: "bench",
  summary: "Prompt and generation speed of a model, or of random weights of a known shape.",
  positionals: [modelPositional],
  flags: {
    ...benchModelFlags,
    shape: {
      kind: "text",
      placeholder: "NAME",
      description: "random weights of a known shape, e.g. llama-3.2-1b; no download",
    },
    type: {
      kind: "text",
      placeholder: "TYPE",
      description: "weight type of --shape, e.g. q4_0, q8_0, q4_k_m",
      default: "q4_k_m",
    },
    "save-shape": {
      kind: "text",
      placeholder: "FILE",
      description: "keep the model that --shape makes, for other programs",
    },
    "prompt-tokens": {
      kind: "text",
      placeholder: "N,…",
      short: "p",
      description: "prompt lengths; 0 = none",
      default: "512",
    },
    "generate-tokens": {
      kind: "text",
      placeholder: "N,…",
      short: "n",
      description: "generation lengths; 0 = none",
      default: "128",
    },
    depth: {
      kind: "text",
      placeholder: "N,…",
      short: "d",
      description: "tokens in the cache before",
      default: "0",
    },
    batch: {
      kind: "text",
      placeholder: "N,…",
      short: "b",
      description: "sequences side by side",
      default: "1",
    },
    repetitions: {
      kind: "number",
      placeholder: "N",
      short: "r",
      description: "runs per test; the median counts",
      default: 5,
    },
    roofline: {
      kind: "boolean",
      description: "the machine's limits, and what share of them each kind of op reaches",
      default: false,
    },
    ...moeStatsFlag,
    output: {
      kind: "text",
      choices: outputFormats,
      short: "o",
      description: "form of the results",
      default: "table",
    },
    json: { kind: "boolean", description: "same as --output json", default: false },
  },
  examples: [
    ["tinfer bench model.gguf", "prompt of 512 and generation of 128 tokens"],
    ["tinfer bench --shape llama-3.2-1b --type q4_0", "the same without a download"],
    ["tinfer bench model.gguf --roofline", "what bounds the speed, op by op"],
    [
      "tinfer bench model.gguf -p 0 -n 64 -d 0,4096 -b 1,4 --output json",
      "more tests, for scripts",
    ],
  ],
  run: benchCommand,
};

function counts(values: FlagValues, flag: string, least: number, most?: number): number[] {
  const text = values.text(flag)!;
  return text.split(",").map((part) => {
    const count = Number(part);
    const isInRange = count >= least && count <= (most ?? count);
    if (part.trim() !== "" && Number.isInteger(count) && isInRange) return count;
    const range = most === undefined ? `of at least ${least}` : `from ${least} to ${most}`;
    throw new TinferError("usage", `--${flag} is '${text}'`, {
      hint: `give whole numbers ${range}, separated by commas`,
    });
  });
}

function testsOf(values: FlagValues): BenchmarkTest[] {
  const tests: BenchmarkTest[] = [];
  const kinds = [
    ["prompt", "prompt-tokens"],
    ["generate", "generate-tokens"],
  ] as const;
  for (const depth of counts(values, "depth", 0)) {
    for (const batch of counts(values, "batch", 1, optionLimits.sequences)) {
      for (const [kind, flag] of kinds) {
        for (const numTokens of counts(values, flag, 0)) {
          if (numTokens > 0) tests.push({ kind, numTokens, depth, batch });
        }
      }
    }
  }
  if (tests.length > 0) return tests;
  throw new TinferError("usage", "there is nothing to measure", { hint: "give -p or -n above 0" });
}

/** The same tensors, whose bytes end with the interrupt. */
function interruptible(tensors: Iterable<GgufTensorSource>, interrupt: Interrupt) {
  return Array.from(tensors, (tensor): GgufTensorSource => {
    const { content } = tensor;
    const chunks = function* () {
      for (const chunk of content instanceof Uint8Array ? [content] : content()) {
        interrupt.throwIfRaised();
        yield chunk;
      }
    };
    return { ...tensor, content: chunks };
  });
}

/** The model's path and name; a random one lives in a folder that is removed at the end. */
function openModel(values: FlagValues, interrupt: Interrupt) {
  const shape = values.text("shape");
  const saved = values.text("save-shape");
  const [argument] = values.positionals;
  if (shape === undefined) {
    const idle = ["save-shape", "type"].find((name) => values.source(name) === "flag");
    if (idle !== undefined) {
      throw new TinferError("usage", `--${idle} needs --shape`, {
        hint: "`tinfer quantize` writes a model in another type",
      });
    }
    const path = modelPath(argument);
    return { path, name: basename(path), [Symbol.dispose]() {} };
  }
  if (argument !== undefined) {
    throw new TinferError("usage", "give either MODEL or --shape", { hint: `drop '${argument}'` });
  }
  const type = values.text("type")!;
  const content = randomModel(shape, type);
  const folder = saved === undefined ? mkdtempSync(join(tmpdir(), "tinfer-bench-")) : undefined;
  const path = saved === undefined ? join(folder!, "model.gguf") : outputFile(saved);
  const dispose = () => {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  };
  say(`writing random weights: ${shape} ${type}`);
  try {
    writeGguf(path, { ...content, tensors: interruptible(content.tensors, interrupt) });
  } catch (error) {
    dispose();
    throw error;
  }
  return { path, name: `${shape} ${type}`, [Symbol.dispose]: dispose };
}

function outputOf(values: FlagValues): string {
  const output = values.text("output")!;
  if (!values.boolean("json")) return output;
  if (output === "json" || values.source("output") !== "flag") return "json";
  throw new TinferError("usage", "give either --output or --json", { hint: "drop one of them" });
}

async function benchCommand(values: FlagValues): Promise<void> {
  const output = outputOf(values);
  const tests = testsOf(values);
  const repetitions = values.number("repetitions")!;
  if (!Number.isInteger(repetitions) || repetitions < 1) {
    throw new TinferError("usage", `--repetitions is ${repetitions}, wanted 1 or more`);
  }
  using interrupt = interruptSignal();
  using model = openModel(values, interrupt);
  const progress = new Progress("bench");
  const records = benchmark(model.path, model.name, tests, {
    model: modelOptions(values),
    repetitions,
    roofline: values.boolean("roofline"),
    expertUse: values.boolean("moe-stats"),
    onProgress: (done, total, name) => {
      interrupt.throwIfRaised();
      progress.update(done, total, name);
    },
  });
  progress.done();
  out(formatRecords(records, output));
}
