// Runs a tiny plan on one executor. Activations of the CPU lie between guards and are filled with
// a pattern before each step, so that a row too many or an element too few is seen.
import type { Session } from "../../src/backend/backend.ts";
import { cpuBackend } from "../../src/backend/cpu.ts";
import { referenceBackend } from "../../src/backend/reference.ts";
import { cpuReport } from "../../src/native/cpu-report.ts";
import {
  blockSize,
  layoutMemory,
  type MemoryLayout,
  type PlanLimits,
} from "../../src/plan/arena.ts";
import type { Plan } from "../../src/plan/builder.ts";
import type { Tensor } from "../../src/plan/ops.ts";
import type { StepData } from "../../src/plan/step-data.ts";
import type { TestWeights } from "./test-weights.ts";

/** Consecutive tokens of one sequence in a step. */
export interface SequencePart {
  readonly tokenIds: readonly number[];
  /** Index of the first of them in the sequence's cache. */
  readonly start: number;
  /** The sequence's KV blocks in order. */
  readonly blockIds: readonly number[];
  /** Absolute position of the first token, where it is not `start`. */
  readonly position?: number;
}

export interface TestStep {
  readonly parts: readonly SequencePart[];
  /** Token rows with outputs; all by default. */
  readonly outputRows?: readonly number[];
}

/** One sequence of `numTokens` tokens, whose ids are their rows in the embedding tables. */
export function plainStep(numTokens: number): TestStep {
  const tokenIds = Array.from({ length: numTokens }, (_, i) => i);
  const blockIds = Array.from({ length: Math.ceil(numTokens / blockSize) }, (_, i) => i);
  return { parts: [{ tokenIds, start: 0, blockIds }] };
}

export function fillStep(data: StepData, step: TestStep): void {
  data.reset();
  let row = 0;
  step.parts.forEach(({ tokenIds, start, blockIds, position = start }, s) => {
    data.queryStarts[s] = row;
    tokenIds.forEach((tokenId, i) => {
      data.tokenIds[row] = tokenId;
      data.positions[row++] = position + i;
    });
    data.kvLens[s] = start + tokenIds.length;
    data.blockTables.set(blockIds, s * data.blockTableStride);
  });
  data.queryStarts[step.parts.length] = row;
  const outputs = step.outputRows ?? Array.from({ length: row }, (_, i) => i);
  data.outputRows.set(outputs);
  const greedy = {
    ...{ temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, presencePenalty: 0 },
    ...{ frequencyPenalty: 0, seedLow: 0, seedHigh: 0, numLogprobs: 0 },
  };
  outputs.forEach((_, i) => {
    data.setSampling(i, greedy, 0, data.tokenIds, 0, 0, undefined);
  });
  data.setCounts(row, outputs.length, step.parts.length);
}

/** Limits for steps of at most `maxTokens` rows; one sequence unless `rest` says otherwise. */
export function limitsFor(maxTokens: number, rest: Partial<PlanLimits> = {}): PlanLimits {
  const blocks = Math.ceil(maxTokens / blockSize);
  return {
    maxTokens,
    maxOutputs: maxTokens,
    maxSequences: 1,
    numBlocks: blocks,
    maxBlocksPerSequence: blocks,
    kvTypeK: "f32",
    kvTypeV: "f32",
    ...rest,
  };
}

/** `reference` or the name of a CPU variant. */
export type ExecutorName = string;
export const cpuVariants: readonly string[] = cpuReport().variants;

const guardWidth = 16;
/** A NaN that no kernel makes. */
const pattern = 0x7fc0dead;

/** The plan with a guard tensor behind each tensor, and no two tensors in the same place. */
function withGuards(plan: Plan, limits: PlanLimits): { plan: Plan; layout: MemoryLayout } {
  const guards = plan.tensors.map((_, i): Tensor => {
    return { id: plan.tensors.length + i, rows: "tokens", width: guardWidth };
  });
  const tensorOffsets: number[] = [];
  let arenaBytes = 0;
  const place = ({ id, rows, width }: Tensor) => {
    const count = rows === "tokens" ? limits.maxTokens : limits.maxOutputs;
    tensorOffsets[id] = arenaBytes;
    arenaBytes += Math.ceil((count * width * 4) / 64) * 64;
  };
  plan.tensors.forEach((tensor, i) => {
    place(tensor);
    place(guards[i]!);
  });
  const { cacheOffsets, kvBytes } = layoutMemory(plan, limits);
  const layout = { tensorOffsets, arenaBytes, cacheOffsets, kvBytes };
  return { plan: { ...plan, tensors: [...plan.tensors, ...guards] }, layout };
}

export class TestExecutor implements Disposable {
  readonly session: Session;
  readonly plan: Plan;
  readonly layout: MemoryLayout;
  readonly limits: PlanLimits;
  readonly #isCpu: boolean;

  constructor(
    plan: Plan,
    limits: PlanLimits,
    weights: TestWeights,
    name: ExecutorName,
    numThreads = 1,
  ) {
    this.#isCpu = name !== "reference";
    const guarded = this.#isCpu
      ? withGuards(plan, limits)
      : { plan, layout: layoutMemory(plan, limits) };
    this.plan = guarded.plan;
    this.layout = guarded.layout;
    this.limits = limits;
    const cpuVariant = this.#isCpu ? name : undefined;
    const options = { limits, weights, numThreads, cpuVariant, cancelWord: undefined };
    const backend = this.#isCpu ? cpuBackend : referenceBackend;
    this.session = backend.load(this.plan, this.layout, options);
  }

  /** Runs a step and checks that nothing beside its rows was written. */
  run(step: TestStep): void {
    const data = this.session.stepData;
    if (this.#isCpu) this.#eachTensor((words) => words.fill(pattern));
    fillStep(data, step);
    this.session.run();
    if (!this.#isCpu) return;
    const { numTokens, numOutputs } = data;
    this.#eachTensor((words, { id, rows, width }) => {
      const isGuard = id >= this.plan.tensors.length / 2;
      const used = isGuard ? 0 : (rows === "tokens" ? numTokens : numOutputs) * width;
      const at = words.subarray(used).findIndex((word) => word !== pattern);
      if (at >= 0) throw new Error(`tensor ${id} written at ${used + at}, it ends at ${used}`);
    });
    fillStep(data, step);
  }

  /** All rows of every tensor, as words. */
  #eachTensor(visit: (words: Uint32Array, tensor: Tensor) => void): void {
    const { maxTokens, maxOutputs } = this.limits;
    this.session.stepData.setCounts(maxTokens, maxOutputs, 1);
    for (const tensor of this.plan.tensors) {
      const floats = this.session.readTensor(tensor);
      visit(new Uint32Array(floats.buffer, floats.byteOffset, floats.length), tensor);
    }
  }

  /** A copy of a tensor of the last step. */
  read(tensor: Tensor): Float32Array {
    return Float32Array.from(this.session.readTensor(tensor));
  }

  [Symbol.dispose](): void {
    this.session[Symbol.dispose]();
  }
}
