// The CPU backend: hands a plan's binary form to libtinfer and runs its steps there.
import { ptr } from "bun:ffi";
import { assert } from "../core/errors.ts";
import { chooseVariant, cpuReport } from "../native/cpu-report.ts";
import { canInterleave } from "../native/interleave.ts";
import { type CancelWord, noteRunning } from "../native/interrupt.ts";
import { check, native, stoppedStatus } from "../native/library.ts";
import { MemoryRegion, viewMemory } from "../native/memory.ts";
import type { MemoryLayout } from "../plan/arena.ts";
import { encodePlan, makePlaces, type WeightPlaces } from "../plan/binary.ts";
import type { Plan } from "../plan/builder.ts";
import { ExpertCounts } from "../plan/expert-counters.ts";
import type { Table, Tensor } from "../plan/ops.ts";
import { StepData } from "../plan/step-data.ts";
import { layoutTables, type TableLayout } from "../plan/tables.ts";
import {
  type Backend,
  isInterleaved,
  type LoadOptions,
  type MeasureOptions,
  type PlanMemory,
  type Probe,
  type ProbedRate,
  peakKinds,
  type Session,
  type WeightMemory,
  weightAddress,
} from "./backend.ts";
import type { OpTimes } from "./op-times.ts";
import { type Tuning, tuningWords } from "./tuning.ts";

/** PlanArgs of kernels/abi.zig: five u64, two u32, two u64. */
function planArgs(
  bytes: Uint8Array<ArrayBuffer>,
  memory: { arena: number; kv: number; cancelWord: number },
  options: Pick<LoadOptions, "numThreads" | "cpuVariant">,
): BigUint64Array<ArrayBuffer> {
  const args = new BigUint64Array(8);
  const words = new Uint32Array(args.buffer);
  args[0] = BigInt(ptr(bytes));
  args[1] = BigInt(bytes.length);
  args[2] = BigInt(memory.arena);
  args[3] = BigInt(memory.kv);
  args[4] = BigInt(memory.cancelWord);
  words[10] = options.numThreads;
  words[11] = chooseVariant(options.cpuVariant);
  return args;
}

const scratchField = 6;
const handleField = 7;
/** Of StepArgs. */
const timesField = 2;
const expertCountsField = 3;

/** Memory is taken in whole pages. */
function inPages(bytes: number): number {
  const { pageBytes } = cpuReport();
  return Math.max(1, Math.ceil(bytes / pageBytes)) * pageBytes;
}

function measure(plan: Plan, layout: MemoryLayout, options: MeasureOptions): PlanMemory {
  const noPlaces = makePlaces(plan.weights.length);
  const bytes = encodePlan(plan, options.limits, layout, noPlaces);
  const args = planArgs(bytes, { arena: 0, kv: 0, cancelWord: 0 }, options);
  check(native().tinfer_plan_measure(ptr(args)), "memory plan");
  const scratchBytes = Number(args[scratchField]);
  const { arenaBytes, kvBytes } = layout;
  const { bytes: tables } = layoutTables(plan.weights);
  return {
    ...{ arenaBytes: inPages(arenaBytes), kvBytes: inPages(kvBytes), scratchBytes },
    tableBytes: tables === 0 ? 0 : inPages(tables),
  };
}

/** The memory plan is exact: it is what was taken. */
function assertAsPlanned(taken: PlanMemory, planned: PlanMemory): void {
  for (const name of ["arenaBytes", "kvBytes", "scratchBytes", "tableBytes"] as const) {
    const same = taken[name] === planned[name];
    assert(same, `${name}: ${taken[name]} taken, ${planned[name]} planned`);
  }
}

class CpuSession implements Session {
  readonly memory: PlanMemory;
  readonly stepData: StepData;
  readonly expertCounts: ExpertCounts;
  readonly #plan: Plan;
  readonly #layout: MemoryLayout;
  readonly #weights: WeightMemory;
  /** Kept alive: the executor reads it. */
  readonly #cancelWord: CancelWord | undefined;
  readonly #arena: MemoryRegion;
  readonly #kv: MemoryRegion;
  readonly #tableLayout: TableLayout;
  /** Undefined where the plan has none. */
  readonly #tables: MemoryRegion | undefined;
  readonly #handle: BigUint64Array<ArrayBuffer>;
  /** Of each weight of the plan; WeightArgs of kernels/abi.zig points here. */
  readonly #places: WeightPlaces;
  /** StepArgs of kernels/abi.zig. */
  readonly #stepArgs: BigUint64Array<ArrayBuffer>;
  /** Kept alive while the executor writes there. */
  #opTimes: OpTimes | undefined;

  constructor(plan: Plan, layout: MemoryLayout, options: LoadOptions) {
    this.#plan = plan;
    this.#layout = layout;
    this.#weights = options.weights;
    this.#cancelWord = options.cancelWord;
    this.#places = makePlaces(plan.weights.length);
    using cleanup = new DisposableStack();
    this.#arena = cleanup.use(new MemoryRegion(layout.arenaBytes, "huge", "activations"));
    this.#kv = cleanup.use(new MemoryRegion(layout.kvBytes, "small", "KV cache"));
    this.#tableLayout = layoutTables(plan.weights);
    const { bytes: tables } = this.#tableLayout;
    if (tables > 0) this.#tables = cleanup.use(new MemoryRegion(tables, "huge", "tables"));
    this.#makeTables();
    this.#findWeights();
    const bytes = encodePlan(plan, options.limits, layout, this.#places);
    const cancelWord = this.#cancelWord === undefined ? 0 : ptr(this.#cancelWord);
    const places = { arena: this.#arena.address, kv: this.#kv.address, cancelWord };
    const args = planArgs(bytes, places, options);
    check(native().tinfer_plan_load(ptr(args)), "load plan");
    this.#handle = new BigUint64Array([args[handleField]!]);
    cleanup.defer(() => this.#releasePlan());
    this.stepData = new StepData(options.limits);
    this.#stepArgs = new BigUint64Array(4);
    this.#stepArgs[0] = args[handleField]!;
    this.#stepArgs[1] = BigInt(ptr(this.stepData.bytes));
    this.expertCounts = new ExpertCounts(plan.ops);
    this.#stepArgs[expertCountsField] = BigInt(ptr(this.expertCounts.words));
    this.memory = {
      arenaBytes: this.#arena.bytes,
      kvBytes: this.#kv.bytes,
      scratchBytes: Number(args[scratchField]),
      tableBytes: this.#tables?.bytes ?? 0,
    };
    if (options.cpus !== undefined) this.#pin(options.cpus);
    assertAsPlanned(this.memory, measure(plan, layout, options));
    cleanup.move();
  }

  #tableAddress(table: Table): number {
    return this.#tables!.address + this.#tableLayout.offsets.get(table)!;
  }

  #makeTables(): void {
    for (const table of this.#tableLayout.offsets.keys()) {
      const memory = viewMemory(this.#tableAddress(table), table.length * 4);
      new Float32Array(memory).set(table.make());
    }
  }

  #findWeights(): void {
    for (const [index, weight] of this.#plan.weights.entries()) {
      const { constant } = weight;
      const isInFile = constant === undefined;
      const address = isInFile
        ? weightAddress(this.#weights, weight)
        : this.#tableAddress(constant.table) + constant.firstValue * 4;
      this.#places.addresses[index] = BigInt(address);
      this.#places.layouts[index] = Number(isInFile && isInterleaved(this.#weights, weight));
    }
  }

  #pin(cpus: readonly number[]): void {
    const numbers = Uint32Array.from(cpus);
    const args = [this.#handle[0]!, BigInt(ptr(numbers)), BigInt(numbers.length)];
    check(native().tinfer_plan_pin(ptr(new BigUint64Array(args))), "--cpus");
  }

  moveWeights(): void {
    this.#findWeights();
    const { addresses, layouts } = this.#places;
    const count = BigInt(addresses.length);
    const args = [this.#handle[0]!, BigInt(ptr(addresses)), BigInt(ptr(layouts)), count];
    check(native().tinfer_plan_move_weights(ptr(new BigUint64Array(args))), "move weights");
  }

  run(): boolean {
    const word = this.#cancelWord;
    if (word !== undefined) noteRunning(word, this.stepData.cancelId);
    const status = native().tinfer_step(ptr(this.#stepArgs));
    if (word !== undefined) noteRunning(word, 0);
    if (status === stoppedStatus) return false;
    check(status, "step");
    return true;
  }

  recordOpTimes(times: OpTimes | undefined): void {
    assert(times === undefined || times.numOps === this.#plan.ops.length, "times of this plan");
    if (times === this.#opTimes) return;
    this.#opTimes = times;
    this.#stepArgs[timesField] = times === undefined ? 0n : BigInt(ptr(times.words));
  }

  tune(tuning: Tuning): void {
    const args = new BigUint64Array(4);
    args[0] = this.#handle[0]!;
    new Uint32Array(args.buffer).set(tuningWords(tuning), 2);
    check(native().tinfer_plan_tune(ptr(args)), "tuning");
  }

  probe(probe: Probe): ProbedRate {
    // ProbeArgs of kernels/abi.zig: the handle, then Probe of kernels/probe.zig.
    const args = new BigUint64Array(10);
    args[0] = this.#handle[0]!;
    const kinds: readonly Probe["kind"][] = ["read", ...peakKinds];
    const words = new Uint32Array(args.buffer);
    words.set([kinds.indexOf(probe.kind), probe.numThreads], 6);
    if (probe.kind === "read") {
      args[1] = BigInt(probe.address);
      args[2] = BigInt(probe.bytes);
      words.set([probe.streams, probe.prefetchBytes], 8);
    }
    check(native().tinfer_probe(ptr(args)), "probe");
    const [nanoseconds, work, meanNanoseconds] = [...args.subarray(5, 8)].map(Number);
    if (work === 0) return { best: 0, mean: 0 };
    return { best: (work! * 1e9) / nanoseconds!, mean: (work! * 1e9) / meanNanoseconds! };
  }

  readTensor(tensor: Tensor): Float32Array {
    const { numTokens, numOutputs } = this.stepData;
    const rows = tensor.rows === "tokens" ? numTokens : numOutputs;
    const address = this.#arena.address + this.#layout.tensorOffsets[tensor.id]!;
    return new Float32Array(viewMemory(address, rows * tensor.width * 4));
  }

  #releasePlan(): void {
    check(native().tinfer_plan_release(ptr(this.#handle)), "release plan");
  }

  [Symbol.dispose](): void {
    this.#releasePlan();
    this.#tables?.[Symbol.dispose]();
    this.#kv[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
  }
}

/** Asks the library to expand nothing: it answers ok for a type that has kernels. */
function supportsType(typeId: number): boolean {
  const unused = BigInt(ptr(new Float32Array(16)));
  const args = new BigUint64Array([unused, unused, 0n, BigInt(typeId)]);
  return native().tinfer_dequantize(ptr(args)) === 0;
}

export const cpuBackend: Backend = {
  name: "cpu",
  supportsType,
  canInterleave,
  measure,
  load: (plan, layout, options) => new CpuSession(plan, layout, options),
};
