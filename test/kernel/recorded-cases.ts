// What is recorded on this CPU to be replayed on another: every op with its odd sizes, tiny models
// of all weight types, and the golden models where they are. The files land in one folder.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAdapters } from "../../src/engine/adapter-choice.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions, type LoadMode } from "../../src/engine/options.ts";
import { StepDriver } from "../../src/engine/step-driver.ts";
import { knownArchitectures } from "../../src/models/registry.ts";
import { PlanBuilder } from "../../src/plan/builder.ts";
import { gates, normKinds, type Tensor } from "../../src/plan/ops.ts";
import { isFloat8 } from "../../src/weights/float8.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { saveAdapter } from "../golden/peft-fixture.ts";
import { readFloats } from "../golden/reference-logits.ts";
import { attentionCases, buildCase, limitsOf, makeSteps } from "./attention-cases.ts";
import { cpuVariants, limitsFor, plainStep, TestExecutor, type TestStep } from "./executor.ts";
import { canLieInterleaved, interleavedTypes } from "./layouts.ts";
import { colsOfType, Random, weightTypes } from "./random.ts";
import { Recording } from "./recording.ts";
import { TestWeights } from "./test-weights.ts";
import { tinyAdapter } from "./tiny-adapter.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";
import { tinyDora } from "./tiny-peft.ts";

/** `short` leaves out the golden models and most repetitions. */
export interface RecordOptions {
  readonly short: boolean;
  /** The folder of golden data, or undefined to do without. */
  readonly golden: string | undefined;
}

/** Files of golden models in F32: their logits must also be near the reference. */
export const exactPrefix = "exact-";

const bestVariant = cpuVariants.at(-1)!;
const maxRows = 40;

/** Records `steps` of an executor's plan, each with the values of `result`. */
function recordSteps(
  path: string,
  cpu: TestExecutor,
  weights: TestWeights,
  result: Tensor,
  steps: readonly TestStep[],
): void {
  const { plan, layout, limits } = cpu;
  const recording = new Recording({ plan, layout, limits, weights });
  for (const step of steps) {
    cpu.run(step);
    recording.add(cpu.session.stepData, result, cpu.read(result));
  }
  recording.write(path);
}

/** Interleaved, or in rows. */
function recordLinear(folder: string, isInterleaved: boolean, rowCounts: readonly number[]): void {
  for (const type of isInterleaved ? interleavedTypes : weightTypes) {
    const n = isInterleaved ? 64 : 37;
    const usual = colsOfType(type);
    const k = isInterleaved && !canLieInterleaved(type, usual) ? 384 : usual;
    const name = `linear-${type}${isInterleaved ? "-interleaved" : ""}`;
    const random = new Random(`recorded ${name}`);
    using weights = new TestWeights();
    weights.addFloats("x", random.activations(maxRows, k), [maxRows, k]);
    weights.add("w", type, [n, k], random.weights(type, n, k));
    if (isFloat8(type)) {
      const scales = random.normals(Math.ceil(n / 5) * Math.ceil(k / 48));
      weights.addScales("w", scales, [5, 48]);
    }
    if (isInterleaved) weights.interleave("w");
    weights.addFloats("b", random.normals(n));
    const b = new PlanBuilder(weights, "hidden");
    const table = b.weight("x", maxRows, k);
    const output = b.linear(b.embed(table), b.weight("w", n, k), b.vector("b", n));
    using cpu = new TestExecutor(
      b.finishHidden(output, table.rows),
      limitsFor(maxRows),
      weights,
      bestVariant,
    );
    const steps = rowCounts.map((rows) => plainStep(rows));
    recordSteps(join(folder, name), cpu, weights, output, steps);
  }
}

function recordSmallOps(folder: string): void {
  const [k, n] = [100, 45];
  const random = new Random("recorded small ops");
  using weights = new TestWeights();
  weights.addFloats("x", random.normals(maxRows * k), [maxRows, k]);
  weights.addFloats("gate", random.normals(n * k, 0.1), [n, k]);
  weights.addFloats("up", random.normals(n * k, 0.1), [n, k]);
  weights.addFloats("b", random.normals(k));
  const steps = [1, 2, 11, maxRows].map((rows) => plainStep(rows));
  const record = (name: string, build: (b: PlanBuilder, x: Tensor) => Tensor) => {
    const b = new PlanBuilder(weights, "hidden");
    const table = b.weight("x", maxRows, k);
    const output = build(b, b.embed(table, 1.5));
    using cpu = new TestExecutor(
      b.finishHidden(output, table.rows),
      limitsFor(maxRows),
      weights,
      bestVariant,
    );
    recordSteps(join(folder, name), cpu, weights, output, steps);
  };
  for (const activation of gates) {
    record(`glu-${activation}`, (b, x) =>
      b.linearGlu(x, b.weight("gate", n, k), b.weight("up", n, k), activation),
    );
  }
  for (const kind of normKinds) {
    record(`norm-${kind}`, (b, x) => {
      return b.gatherRows(b.norm(x, kind, b.vector("b", k), 1e-5, { bias: b.vector("b", k) }));
    });
  }
  const frequencies = Float32Array.from({ length: 13 }, (_, i) => 0.6 ** i);
  record("rotations", (b) => b.rotations(b.constant("frequencies", frequencies), 1.2));
}

function recordAttention(folder: string, count: number): void {
  attentionCases.slice(0, count).forEach((c, index) => {
    const random = new Random(`recorded attention ${index}`);
    using weights = new TestWeights();
    const { plan, output } = buildCase(c, random, weights);
    using cpu = new TestExecutor(plan, limitsOf(c), weights, bestVariant, 2);
    recordSteps(join(folder, `attention-${index}`), cpu, weights, output, makeSteps(random));
  });
}

interface ModelCase {
  readonly name: string;
  readonly path: string;
  readonly tokenIds: readonly number[];
  readonly contextLen: number;
  /** Logits of all tokens by another implementation. */
  readonly reference?: Float32Array | undefined;
  /** As `--lora` takes them. */
  readonly adapters?: readonly string[];
  readonly load?: LoadMode;
}

/** Lengths of the steps that a prompt is cut into; the last one repeats. */
const chunkLens = [33, 1, 1, 7, 12];
const mostChunk = Math.max(...chunkLens);

function recordModel(folder: string, given: ModelCase) {
  const { name, path, tokenIds, contextLen, reference, adapters = [], load = "lazy" } = given;
  using model = new LoadedModel(path, {
    ...{ ...defaultModelOptions, adapters: parseAdapters(adapters) },
    ...{ backend: "cpu", load, kvTypeK: "f32", kvTypeV: "f32", contextLen },
    ...{ maxTokensPerStep: mostChunk, maxOutputsPerStep: mostChunk },
  });
  const { plan, memoryPlan, file, session } = model;
  const logits = plan.logits!;
  const { limits, layout, maxContextLen } = memoryPlan;
  const weights = model.adapters.memory(file);
  const recording = new Recording({ plan, limits, layout, weights });
  const driver = new StepDriver(session, maxContextLen);
  let start = 0;
  for (let i = 0; start < tokenIds.length; i++) {
    const wanted = chunkLens[Math.min(i, chunkLens.length - 1)]!;
    const count = Math.min(wanted, tokenIds.length - start);
    driver.run(tokenIds, start, count, "all");
    const part = reference?.slice(start * logits.width, (start + count) * logits.width);
    recording.add(session.stepData, logits, session.readTensor(logits), part);
    start += count;
  }
  recording.write(join(folder, name));
}

function recordTinyModels(folder: string, names: readonly string[]): void {
  for (const name of names) {
    const path = join(folder, `${name}.gguf`);
    writeGguf(path, tinyModel(name, tinyMixes[name]!));
    const random = new Random(`recorded ${name}`);
    const tokenIds = Array.from({ length: 70 }, () => random.below(tinyVocabSize));
    recordModel(folder, { name: `tiny-${name}`, path, tokenIds, contextLen: 96 });
    if (name !== "experts") continue;
    recordAdapters(folder, path, tokenIds);
    // Copies lie interleaved.
    const copied = { name: "tiny-experts-interleaved", load: "eager" } as const;
    recordModel(folder, { ...copied, path, tokenIds, contextLen: 96 });
  }
}

/** Two adapters at once, one of which sets lengths. */
function recordAdapters(folder: string, path: string, tokenIds: readonly number[]): void {
  const model = tinyModel("experts", tinyMixes["experts"]!);
  const plain = join(folder, "adapter.gguf");
  writeGguf(plain, tinyAdapter(model, new Random("recorded adapter")).content);
  const { adapter } = tinyDora(model, new Random("recorded lengths"));
  // Only files in the folder are recordings.
  const own = mkdtempSync(join(tmpdir(), "tinfer-recorded-"));
  const adapters = [`${plain}=0.5`, `${saveAdapter(own, adapter)}=0.9`];
  recordModel(folder, { name: "tiny-adapters", path, tokenIds, contextLen: 96, adapters });
  rmSync(own, { recursive: true });
}

/** Longer prompts take an emulated CPU too long. */
const longestPrompt = 1024;

/** Models of the families that tinfer has whose reference logits are exact and from the start. */
function goldenArchitectures(golden: string): ModelCase[] {
  const folder = join(golden, "architectures");
  const names = readdirSync(folder).filter((file) => file.endsWith(".gguf"));
  return names.flatMap((file) => {
    const path = join(folder, file);
    const { metadata } = readGguf(path);
    const architecture = String(metadata.get("general.architecture"));
    const stem = path.replace(".gguf", "");
    const facts = JSON.parse(readFileSync(`${stem}.json`, "utf8"));
    const { tokenIds, contextSize } = facts;
    // Encoders have no logits; the reference of some quantised models rounds as it likes.
    const isExact = !("poolingType" in facts) && !("nmseVsDequantisedWeights" in facts);
    const isKnown = knownArchitectures().includes(architecture);
    if (!isKnown || !isExact || tokenIds.length > longestPrompt) return [];
    const reference = readFloats(`${stem}.logits.f32`);
    const name = `${exactPrefix}${file.replace(".gguf", "")}`;
    return [{ name, path, tokenIds, contextLen: contextSize, reference }];
  });
}

function goldenQuantised(golden: string): ModelCase[] {
  const folder = join(golden, "quantised");
  const { tokenIds } = JSON.parse(readFileSync(join(folder, "index.json"), "utf8"));
  return readdirSync(folder)
    .filter((file) => file.endsWith(".gguf"))
    .map((file) => {
      const reference = readFloats(join(folder, file.replace(".gguf", ".logits.f32")));
      const name = `golden-${file.replace(".gguf", "")}`;
      return { name, path: join(folder, file), tokenIds, contextLen: 128, reference };
    });
}

/** Records all cases into `folder` and returns the files. */
export function recordCases(folder: string, { short, golden }: RecordOptions): string[] {
  const rowCounts = short ? [1, 3, 13] : [1, 2, 3, 5, 10, 13, 33];
  for (const isInterleaved of [false, true]) recordLinear(folder, isInterleaved, rowCounts);
  recordSmallOps(folder);
  recordAttention(folder, short ? 4 : attentionCases.length);
  recordTinyModels(folder, short ? ["k-mix", "experts"] : Object.keys(tinyMixes));
  if (golden !== undefined && !short) {
    const models = [...goldenArchitectures(golden), ...goldenQuantised(golden)];
    for (const model of models) recordModel(folder, model);
  }
  return readdirSync(folder)
    .filter((file) => !file.endsWith(".gguf"))
    .sort()
    .map((file) => join(folder, file));
}
