// Measures a loaded model: prompt processing and generation at given lengths, depths and batch
// sizes. Steps are driven directly, so the figures are those of the executor alone.
import { median } from "../core/median.ts";
import type { Op, Rows, Tensor, Weight } from "../plan/ops.ts";
import { type ExpertUse, expertUse, noExperts } from "./expert-use.ts";
import { LoadedModel } from "./loaded-model.ts";
import { processPeakRssBytes } from "./machine.ts";
import { type StepShape, weightRowBytes } from "./op-cost.ts";
import type { ModelOptions } from "./options.ts";
import type { RooflineReport } from "./roofline.ts";
import { RooflineRecorder } from "./roofline-recorder.ts";
import { StepDriver } from "./step-driver.ts";

export interface BenchmarkTest {
  readonly kind: "prompt" | "generate";
  /** Tokens to process or to generate. */
  readonly numTokens: number;
  /** Tokens in the cache before. */
  readonly depth: number;
  /** Sequences side by side. */
  readonly batch: number;
}

/** One line of `tinfer bench`; the field names are fixed in the documentation of its output. */
export interface BenchmarkRecord {
  readonly model: string;
  readonly type: string;
  readonly bytes: number;
  readonly backend: string;
  readonly cpuVariant: string;
  readonly threads: number;
  readonly test: string;
  readonly depth: number;
  readonly batch: number;
  readonly repetitions: number;
  /** Median over the repetitions. */
  readonly tokensPerSecond: number;
  readonly tokensPerSecondSd: number;
  /** Median time of one whole prompt with its first token; null for generation. */
  readonly ttftMs: number | null;
  /** Of the process, without what a roofline takes. */
  readonly peakRssBytes: number;
  /** Weight bytes read per second (each step reads all of them once). */
  readonly gigabytesPerSecond: number;
  /** Multiply-adds of the matrices, counted twice. */
  readonly gigaopsPerSecond: number;
  readonly roofline?: RooflineReport;
  /** Of all runs of the test, with random tokens. */
  readonly expertUse?: ExpertUse;
}

export interface BenchmarkOptions {
  readonly model: ModelOptions;
  readonly repetitions: number;
  /** Whether records get their `roofline`. */
  readonly roofline: boolean;
  /** Whether records get their `expertUse`; throws for models without experts. */
  readonly expertUse?: boolean;
  readonly onProgress?: (done: number, total: number, name: string) => void;
}

export function benchmark(
  path: string,
  name: string,
  tests: readonly BenchmarkTest[],
  options: BenchmarkOptions,
): BenchmarkRecord[] {
  const contextLen = Math.max(...tests.map((test) => test.depth + test.numTokens)) + 1;
  const maxSequences = Math.max(...tests.map((test) => test.batch));
  const modelOptions = { ...options.model, contextLen, maxSequences };
  using model = new LoadedModel(path, modelOptions, { outputs: "tokens" });
  if (options.expertUse && model.session.expertCounts.routes.length === 0) throw noExperts();
  const total = tests.length * (options.repetitions + 1);
  if (modelOptions.load === "auto" && !modelOptions.lock) {
    // As an idle engine does.
    for (const _ of model.promote()) options.onProgress?.(0, total, "copying to huge pages");
  }
  if (model.lacksTuning) {
    const report = () => options.onProgress?.(0, total, "tuning to this machine, once");
    report();
    for (const _ of model.findTuning()) report();
  }
  const loadPeakBytes = processPeakRssBytes();
  using roofline = options.roofline ? new RooflineRecorder(model) : undefined;
  const driver = new StepDriver(model.session, contextLen);
  let done = 0;
  return tests.map((test) => {
    const times: number[] = [];
    fillCache(model, driver, test);
    model.session.expertCounts.clear();
    const steps = stepsOf(model, test);
    const run = () => runSteps(model, driver, steps);
    roofline?.begin(steps);
    // The first run warms pages, clocks and predictors up; it does not count.
    for (let i = 0; i <= options.repetitions; i++) {
      const ms = i === 0 || roofline === undefined ? run() : roofline.record(run);
      if (i > 0) times.push(ms);
      options.onProgress?.(++done, total, testName(test));
    }
    const use = options.expertUse ? expertUse(model.plan, model.session.expertCounts) : undefined;
    const runPeakBytes = processPeakRssBytes() - (roofline?.takenBytes ?? 0);
    const peakRssBytes = Math.max(loadPeakBytes, runPeakBytes);
    const measured = makeRecord(name, model, test, times, peakRssBytes);
    const record = { ...measured, ...(use && { expertUse: use }) };
    if (roofline === undefined) return record;
    const generates = test.kind === "generate";
    return { ...record, roofline: roofline.report({ generates, batch: test.batch }) };
  });
}

export function testName({ kind, numTokens }: BenchmarkTest): string {
  return kind === "prompt" ? `pp${numTokens}` : `tg${numTokens}`;
}

/** Any tokens do: the cost does not depend on them. */
function makeTokens(count: number, vocabSize: number): Int32Array {
  return Int32Array.from({ length: count }, (_, index) => (index * 7919 + 13) % vocabSize);
}

/** The steps of one repetition: prompts in chunks as large as a step takes, else token by token. */
function stepsOf(model: LoadedModel, test: BenchmarkTest): StepShape[] {
  const { depth, numTokens, batch } = test;
  const isPrompt = test.kind === "prompt";
  if (isPrompt) return promptSteps(model, { start: depth, end: depth + numTokens }, batch, 1);
  return Array.from({ length: numTokens }, (_, i) => {
    return { start: depth + i, numTokens: 1, numSequences: batch, numOutputs: 1 };
  });
}

/** `numOutputs` rows of each sequence in the last step. */
function promptSteps(
  model: LoadedModel,
  { start, end }: { start: number; end: number },
  batch: number,
  numOutputs: 0 | 1,
): StepShape[] {
  const chunkLen = Math.max(1, Math.floor(model.memoryPlan.limits.maxTokens / batch));
  const steps: StepShape[] = [];
  for (let at = start; at < end; at += chunkLen) {
    const numTokens = Math.min(chunkLen, end - at);
    const outputs = at + numTokens === end ? numOutputs : 0;
    steps.push({ start: at, numTokens, numSequences: batch, numOutputs: outputs });
  }
  return steps;
}

function fillCache(model: LoadedModel, driver: StepDriver, test: BenchmarkTest): void {
  const steps = promptSteps(model, { start: 0, end: test.depth }, test.batch, 0);
  runSteps(model, driver, steps);
}

/** Milliseconds of one repetition. */
function runSteps(model: LoadedModel, driver: StepDriver, steps: readonly StepShape[]): number {
  const last = steps.at(-1);
  const tokens = makeTokens(last ? last.start + last.numTokens : 0, model.facts.vocabSize);
  const begin = performance.now();
  for (const { start, numTokens, numOutputs, numSequences } of steps) {
    driver.run(tokens, start, numTokens, numOutputs > 0 ? "last" : "none", numSequences);
  }
  return performance.now() - begin;
}

function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

function makeRecord(
  name: string,
  model: LoadedModel,
  test: BenchmarkTest,
  times: readonly number[],
  peakRssBytes: number,
): BenchmarkRecord {
  const { facts } = model;
  const rates = times.map((ms) => (test.numTokens * test.batch * 1000) / ms);
  const tokensPerSecond = median(rates);
  const { maxTokens } = model.memoryPlan.limits;
  const generates = test.kind === "generate";
  const tokensPerStep = generates ? test.batch : Math.min(maxTokens, test.numTokens * test.batch);
  const work = matrixWork(model, { tokens: tokensPerStep, outputs: test.batch });
  const outputsPerToken = generates ? 1 : 1 / test.numTokens;
  const perToken = work.layerWeights + work.outputWeights * outputsPerToken;
  return {
    model: name,
    type: facts.mainType,
    bytes: facts.weightBytes,
    backend: facts.backend,
    cpuVariant: facts.cpuVariant,
    threads: facts.numThreads,
    test: testName(test),
    depth: test.depth,
    batch: test.batch,
    repetitions: times.length,
    tokensPerSecond,
    tokensPerSecondSd: deviation(rates),
    ttftMs: generates ? null : median(times),
    peakRssBytes,
    gigabytesPerSecond: ((tokensPerSecond / tokensPerStep) * work.bytes) / 1e9,
    gigaopsPerSecond: (tokensPerSecond * perToken * 2) / 1e9,
  };
}

/** Matrices that an op multiplies by, and the share of them that one row goes through. */
interface Matrices {
  readonly input: Tensor;
  readonly weights: readonly Weight[];
  readonly share: number;
}

function matricesOf(op: Op): Matrices | undefined {
  switch (op.kind) {
    case "linear":
      return { input: op.input, weights: op.outputs.map((o) => o.weight), share: 1 };
    case "linearGlu":
      return { input: op.input, weights: [op.gate, op.up], share: 1 };
    case "slotLinear": {
      const share = op.routing === undefined ? 1 : op.routing.width / 2 / op.weights.length;
      return { input: op.input, weights: op.weights, share };
    }
    case "expertGlu":
    case "expertLinear": {
      const weights = op.kind === "expertGlu" ? [...op.gate, ...op.up] : op.weights;
      const numExperts = op.kind === "expertGlu" ? op.gate.length : op.weights.length;
      return { input: op.input, weights, share: op.routing.width / 2 / numExperts };
    }
    default:
      return undefined;
  }
}

/**
 * Weights multiplied per token in the layers and per output row, and bytes read per step, which
 * touches as many experts as even routing would.
 */
function matrixWork({ plan }: LoadedModel, step: Readonly<Record<Rows, number>>) {
  let layerWeights = 0;
  let outputWeights = 0;
  const bytesByWeight = new Map<string, number>();
  for (const op of plan.ops) {
    const matrices = matricesOf(op);
    if (matrices === undefined) continue;
    const { input, weights, share } = matrices;
    const touched = 1 - (1 - share) ** step[input.rows];
    for (const weight of weights) {
      const { name, rows, cols, slice } = weight;
      const bytes = rows * weightRowBytes(weight);
      bytesByWeight.set(`${name} ${slice?.first ?? 0}`, bytes * touched);
      if (input.rows === "tokens") layerWeights += rows * cols * share;
      else outputWeights += rows * cols * share;
    }
  }
  const bytes = [...bytesByWeight.values()].reduce((sum, count) => sum + count, 0);
  return { layerWeights, outputWeights, bytes };
}
