// Measures an importance matrix: for every weight matrix the squares of what its columns are
// multiplied with, summed over the tokens of a text; for experts over the tokens that they get.
import { assert, TinferError } from "../core/errors.ts";
import type { Product } from "../plan/keep-inputs.ts";
import type { ExpertWeights, Tensor, Weight } from "../plan/ops.ts";
import type { GgufTensorSource } from "../weights/gguf-writer.ts";
import { countSuffix, sumSuffix } from "../weights/importance.ts";
import { LoadedModel } from "./loaded-model.ts";
import type { ModelOptions } from "./options.ts";
import { StepDriver } from "./step-driver.ts";
import { countChunks } from "./text-chunks.ts";

/** The inputs of all layers' products are kept for so many tokens: some hundred MB at most. */
const tokensPerStep = 128;

/** Sums of one tensor of the file. */
export interface ColumnSums {
  readonly cols: number;
  /** [matrices, cols]: one matrix, or a stack of experts'. */
  readonly sums: Float64Array;
  /** [matrices]: rows that were multiplied with each. */
  readonly counts: Float64Array;
}

class ImportanceCollector {
  readonly entries = new Map<string, ColumnSums>();

  #entry({ name, cols }: Weight, numMatrices: number): ColumnSums {
    let entry = this.entries.get(name);
    if (entry === undefined) {
      const sums = new Float64Array(numMatrices * cols);
      entry = { cols, sums, counts: new Float64Array(numMatrices) };
      this.entries.set(name, entry);
    }
    return entry;
  }

  /** `read`: a tensor's rows of the last step. */
  add(product: Product, read: (tensor: Tensor) => Float32Array): void {
    const { input } = product;
    const values = read(input);
    const numRows = values.length / input.width;
    if (product.kind === "rows") {
      // Parts of one tensor count once.
      for (const weight of new Map(product.weights.map((w) => [w.name, w])).values()) {
        const entry = this.#entry(weight, 1);
        for (let row = 0; row < numRows; row++) addRow(entry, 0, values, row * input.width);
      }
    } else if (product.kind === "heads") {
      this.#addHeads(product.weights, values, input.width);
    } else {
      const routing = read(product.routing);
      for (const stack of product.stacks) {
        this.#addExperts(stack, values, input.width, routing, product.routing.width / 2);
      }
    }
  }

  #addHeads(weights: ExpertWeights, values: Float32Array, width: number): void {
    weights.forEach((weight, head) => {
      if (weight.constant !== undefined) return;
      const { count, index } = placeInStack(weight);
      const entry = this.#entry(weight, count);
      for (let at = head * weight.cols; at < values.length; at += width) {
        addRow(entry, index, values, at);
      }
    });
  }

  #addExperts(
    stack: ExpertWeights,
    values: Float32Array,
    width: number,
    routing: Float32Array,
    numSlots: number,
  ): void {
    const entries = stack.map((weight) => {
      const { count, index } = placeInStack(weight);
      return { entry: this.#entry(weight, count), index };
    });
    const { cols } = stack[0]!;
    const isPerSlot = width === numSlots * cols;
    assert(isPerSlot || width === cols, "experts read a row per token or slot");
    const numTokens = values.length / width;
    for (let token = 0; token < numTokens; token++) {
      for (let slot = 0; slot < numSlots; slot++) {
        const { entry, index } = entries[routing[token * 2 * numSlots + slot]!]!;
        addRow(entry, index, values, token * width + (isPerSlot ? slot * cols : 0));
      }
    }
  }
}

function placeInStack({ slice }: Weight): { count: number; index: number } {
  return { count: slice?.count ?? 1, index: slice?.first ?? 0 };
}

function addRow(entry: ColumnSums, matrix: number, values: Float32Array, start: number): void {
  const { cols, sums, counts } = entry;
  const first = matrix * cols;
  for (let column = 0; column < cols; column++) {
    const value = values[start + column]!;
    sums[first + column]! += value * value;
  }
  counts[matrix]! += 1;
}

export interface ImportanceOptions {
  readonly chunkLen: number;
  readonly numChunks: number | undefined;
  readonly bosId: number | undefined;
}

export interface MeasuredImportance {
  readonly entries: ReadonlyMap<string, ColumnSums>;
  readonly numChunks: number;
  readonly numTokens: number;
}

/** Yields after every step. */
export function* measureImportance(
  path: string,
  modelOptions: ModelOptions,
  tokenIds: Int32Array,
  { chunkLen, numChunks: most, bosId }: ImportanceOptions,
): Generator<{ readonly doneTokens: number; readonly totalTokens: number }, MeasuredImportance> {
  const numChunks = countChunks(tokenIds, chunkLen, most);
  const step = { contextLen: chunkLen, maxSequences: 1 };
  const rows = { maxTokensPerStep: tokensPerStep, maxOutputsPerStep: tokensPerStep };
  const loading = { outputs: "inputs" } as const;
  using model = new LoadedModel(path, { ...modelOptions, ...step, ...rows }, loading);
  const { plan, session } = model;
  // An encoder reads its text in one step.
  const stepLen = model.facts.isEncoder ? chunkLen : tokensPerStep;
  const driver = new StepDriver(session, chunkLen);
  const collector = new ImportanceCollector();
  const totalTokens = numChunks * chunkLen;
  for (let chunk = 0; chunk < numChunks; chunk++) {
    const ids = tokenIds.slice(chunk * chunkLen, (chunk + 1) * chunkLen);
    if (bosId !== undefined) ids[0] = bosId;
    for (let start = 0; start < chunkLen; start += stepLen) {
      driver.run(ids, start, Math.min(stepLen, chunkLen - start), "all");
      for (const product of plan.products) {
        collector.add(product, (tensor) => session.readTensor(tensor));
      }
      const doneTokens = chunk * chunkLen + Math.min(chunkLen, start + stepLen);
      yield { doneTokens, totalTokens };
    }
  }
  requireFinite(collector.entries);
  return { entries: collector.entries, numChunks, numTokens: totalTokens };
}

function requireFinite(entries: ReadonlyMap<string, ColumnSums>): void {
  for (const [name, { sums }] of entries) {
    if (sums.every(Number.isFinite)) continue;
    throw new TinferError("native", `what '${name}' is multiplied with is not finite`, {
      hint: "the model computes NaN or infinity on this text: take another copy of it",
    });
  }
}

/** The tensors of the GGUF form, in the order of names. */
export function importanceTensors(entries: ReadonlyMap<string, ColumnSums>): GgufTensorSource[] {
  const bytes = (values: Float64Array) => new Uint8Array(Float32Array.from(values).buffer);
  const sorted = [...entries].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return sorted.flatMap(([name, { cols, sums, counts }]) => [
    { name: name + sumSuffix, type: "f32", shape: [counts.length, cols], content: bytes(sums) },
    { name: name + countSuffix, type: "f32", shape: [counts.length, 1], content: bytes(counts) },
  ]);
}
