// What an executor of plans offers. `reference.ts` and `cpu.ts` implement it; `select.ts` chooses.
import { assert } from "../core/errors.ts";
import type { CancelWord } from "../native/interrupt.ts";
import type { MemoryLayout, PlanLimits } from "../plan/arena.ts";
import type { Plan } from "../plan/builder.ts";
import type { ExpertCounts } from "../plan/expert-counters.ts";
import type { Tensor, Weight } from "../plan/ops.ts";
import { isWholePanels } from "../plan/panels.ts";
import type { StepData } from "../plan/step-data.ts";
import { quantTypeOf, rowBytes } from "../weights/quant-types.ts";
import type { OpTimes } from "./op-times.ts";
import type { Tuning } from "./tuning.ts";

/** Where the model's weights lie in memory, by tensor name of the file. */
export interface WeightMemory {
  address(name: string): number;
  bytes(name: string): number;
  /** Whether 16 rows of it lie side by side there, else one after another as in files. */
  isInterleaved(name: string): boolean;
}

/** Where a weight of the file begins. */
export function weightAddress(weights: WeightMemory, { name, slice }: Weight): number {
  if (slice === undefined) return weights.address(name);
  return weights.address(name) + (weights.bytes(name) / slice.count) * slice.first;
}

/** Whether a weight of the file lies interleaved, which its plan has to allow. */
export function isInterleaved(weights: WeightMemory, weight: Weight): boolean {
  const { name, typeId, cols } = weight;
  if (!weights.isInterleaved(name)) return false;
  const type = quantTypeOf(typeId);
  assert(type !== undefined, `quant type ${typeId} of ${name}`);
  const tensorRows = weights.bytes(name) / rowBytes(type.name, cols);
  assert(isWholePanels(weight, tensorRows), `${name} is read in whole panels`);
  return true;
}

export interface LoadOptions {
  readonly limits: PlanLimits;
  readonly weights: WeightMemory;
  readonly numThreads: number;
  /** CPU variant by name; undefined = the best one. */
  readonly cpuVariant: string | undefined;
  /** One CPU per thread to pin it to; undefined = the system places them. */
  readonly cpus?: readonly number[] | undefined;
  /** What stops steps between ops; undefined = a signal, where `catchInterrupts` was called. */
  readonly cancelWord: CancelWord | undefined;
}

export type MeasureOptions = Pick<LoadOptions, "limits" | "numThreads" | "cpuVariant">;

/** Bytes a loaded plan takes beside the weights. */
export interface PlanMemory {
  readonly arenaBytes: number;
  readonly kvBytes: number;
  readonly scratchBytes: number;
  /** Tables of the model code. */
  readonly tableBytes: number;
}

export const peakKinds = ["int8", "bf16", "f32"] as const;
/** Number formats whose dot products have a speed of their own. */
export type PeakKind = (typeof peakKinds)[number];

/** A limit of the machine to measure, with the first `numThreads` threads of a session. */
export type Probe =
  | { readonly kind: PeakKind; readonly numThreads: number }
  | {
      readonly kind: "read";
      readonly numThreads: number;
      readonly address: number;
      readonly bytes: number;
      /** One stream, or four a quarter apart. */
      readonly streams: 1 | 4;
      readonly prefetchBytes: number;
    };

/** Bytes read or operations per second over a few rounds; 0 = no such instruction. */
export interface ProbedRate {
  readonly best: number;
  readonly mean: number;
}

/** A plan with its memory, ready to run steps. Owns arena, KV pool and scratch. */
export interface Session extends Disposable {
  readonly memory: PlanMemory;
  /** The step's input and output arrays; filled in before `run`. */
  readonly stepData: StepData;
  /** Grows with every step; who asks may clear it between two. */
  readonly expertCounts: ExpertCounts;
  /** Runs one step to its end. False: it was cancelled on the way and has no results. */
  run(): boolean;
  /** From now on `run` adds what each op takes to `times`, made for this plan; undefined stops. */
  recordOpTimes(times: OpTimes | undefined): void;
  /** Takes effect at the next step; results keep their bits. */
  tune(tuning: Tuning): void;
  /** Takes over where the weights lie now, and how: the same weights at another address. */
  moveWeights(): void;
  probe(probe: Probe): ProbedRate;
  /** A result of the last step, `[rows, tensor.width]`; valid until the next one. */
  readTensor(tensor: Tensor): Float32Array;
}

export interface Backend {
  readonly name: string;
  /** Whether it computes with weights of this GGUF type. */
  supportsType(typeId: number): boolean;
  /** Whether it does with rows of `cols` weights of this type that lie interleaved. */
  canInterleave(typeId: number, cols: number): boolean;
  /** Bytes that `load` will take, exactly. */
  measure(plan: Plan, layout: MemoryLayout, options: MeasureOptions): PlanMemory;
  load(plan: Plan, layout: MemoryLayout, options: LoadOptions): Session;
}
