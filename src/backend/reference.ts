// The reference backend: every op as its definition says, in float64, clear and slow. It is the
// oracle that other backends are compared with.
import { assert, TinferError } from "../core/errors.ts";
import { viewMemory } from "../native/memory.ts";
import type { MemoryLayout } from "../plan/arena.ts";
import type { Plan } from "../plan/builder.ts";
import { ExpertCounts } from "../plan/expert-counters.ts";
import type { Op, OpOf, RowNorm, Table, Tensor, Weight, WeightScales } from "../plan/ops.ts";
import { StepData } from "../plan/step-data.ts";
import { layoutTables } from "../plan/tables.ts";
import { canDequantize, dequantizeRow } from "../weights/dequantize.ts";
import { quantTypeOf, rowBytes } from "../weights/quant-types.ts";
import { scaleRow } from "../weights/scaled-rows.ts";
import {
  type Backend,
  type LoadOptions,
  type PlanMemory,
  type Session,
  weightAddress,
} from "./backend.ts";
import type { OpTimes } from "./op-times.ts";
import { gated } from "./reference-activations.ts";
import { adapterScale, magnitude } from "./reference-adapters.ts";
import { attend, prepareQkv } from "./reference-attention.ts";
import { ReferenceCache } from "./reference-cache.ts";
import {
  expertGlu,
  expertLinear,
  route,
  scaleSlots,
  slotLinear,
  sumSlots,
} from "./reference-experts.ts";
import {
  add,
  copyColumns,
  gatherRows,
  glu,
  norm,
  normalized,
  positionScale,
  rotations,
  unary,
} from "./reference-rows.ts";
import { sampleRows } from "./reference-sample.ts";
import { dot, factorsFor, type ReferenceState, rowOf, rowsOf } from "./reference-state.ts";

class ReferenceSession implements Session, ReferenceState {
  readonly memory: PlanMemory;
  readonly stepData: StepData;
  readonly step: StepData;
  readonly tensors: Float64Array[];
  readonly caches: readonly ReferenceCache[];
  readonly expertCounts: ExpertCounts;
  readonly #plan: Plan;
  readonly #weights: LoadOptions["weights"];
  #times: OpTimes | undefined;
  /** Dequantised matrices; the models that this backend runs are small. */
  readonly #expanded = new Map<Weight, Float32Array>();
  readonly #tables = new Map<Table, Float32Array>();

  constructor(plan: Plan, layout: MemoryLayout, options: LoadOptions) {
    const { limits } = options;
    this.#plan = plan;
    this.#weights = options.weights;
    this.memory = measure(plan, layout);
    this.stepData = new StepData(limits);
    this.step = this.stepData;
    this.tensors = plan.tensors.map(({ rows, width }) => {
      return new Float64Array((rows === "tokens" ? limits.maxTokens : limits.maxOutputs) * width);
    });
    this.expertCounts = new ExpertCounts(plan.ops);
    this.caches = plan.caches.map((cache) => new ReferenceCache(cache, limits));
  }

  weightRow(weight: Weight, row: number): Float32Array {
    let matrix = this.#expanded.get(weight);
    if (matrix === undefined) {
      matrix = weight.constant === undefined ? this.#expand(weight) : this.#constant(weight);
      this.#expanded.set(weight, matrix);
    }
    return matrix.subarray(row * weight.cols, (row + 1) * weight.cols);
  }

  #constant({ constant, rows, cols }: Weight): Float32Array {
    const { table, firstValue } = constant!;
    const values = this.#tables.get(table) ?? table.make();
    this.#tables.set(table, values);
    return values.subarray(firstValue, firstValue + rows * cols);
  }

  #expand(weight: Weight): Float32Array {
    const type = quantTypeOf(weight.typeId);
    assert(type !== undefined, `quant type ${weight.typeId} of ${weight.name}`);
    const bytes = rowBytes(type.name, weight.cols);
    assert(!this.#weights.isInterleaved(weight.name), `${weight.name} lies in rows`);
    const address = weightAddress(this.#weights, weight);
    const matrix = new Float32Array(weight.rows * weight.cols);
    for (let row = 0; row < weight.rows; row++) {
      const source = new Uint8Array(viewMemory(address + row * bytes, bytes));
      const target = matrix.subarray(row * weight.cols, (row + 1) * weight.cols);
      dequantizeRow(type.name, source, target);
      if (weight.scales !== undefined) this.#scaleRow(weight.scales, row, target);
    }
    return weight.gain === 1 ? matrix : matrix.map((value) => value * weight.gain);
  }

  #scaleRow(
    { weight, blockRows, blockCols, firstRow }: WeightScales,
    row: number,
    of: Float32Array,
  ) {
    scaleRow(of, this.weightRow(weight, Math.floor((firstRow + row) / blockRows)), blockCols);
  }

  recordOpTimes(times: OpTimes | undefined): void {
    this.#times = times;
  }

  /** Nothing here depends on the machine. */
  tune(): void {}

  /** Weights are read through their owner at each expansion, which knows where they are. */
  moveWeights(): void {}

  probe(): never {
    throw new TinferError("unsupported", "the reference backend has no limits to measure", {
      hint: "use --backend cpu",
    });
  }

  run(): boolean {
    this.#plan.ops.forEach((op, index) => {
      const start = performance.now();
      this.#runOp(op);
      this.#times?.add(index, performance.now() - start);
    });
    return true;
  }

  #runOp(op: Op): void {
    switch (op.kind) {
      case "embed":
        embed(this, op);
        break;
      case "gatherRows":
        gatherRows(this, op);
        break;
      case "norm":
        norm(this, op);
        break;
      case "unary":
        unary(this, op);
        break;
      case "add":
        add(this, op);
        break;
      case "glu":
        glu(this, op);
        break;
      case "positionScale":
        positionScale(this, op);
        break;
      case "adapterScale":
        adapterScale(this, op);
        break;
      case "copyColumns":
        copyColumns(this, op);
        break;
      case "magnitude":
        magnitude(this, op);
        break;
      case "slotLinear":
        slotLinear(this, op);
        break;
      case "linear":
        linear(this, op);
        break;
      case "linearGlu":
        linearGlu(this, op);
        break;
      case "route":
        route(this, op);
        break;
      case "scaleSlots":
        scaleSlots(this, op);
        break;
      case "sumSlots":
        sumSlots(this, op);
        break;
      case "expertGlu":
        expertGlu(this, op);
        break;
      case "expertLinear":
        expertLinear(this, op);
        break;
      case "rotations":
        rotations(this, op);
        break;
      case "qkvPrep":
        prepareQkv(this, op);
        break;
      case "attentionPaged":
        attend(this, op);
        break;
      case "sample":
        sampleRows(this, op);
        break;
    }
  }

  readTensor(tensor: Tensor): Float32Array {
    const rows = rowsOf(this.step, tensor);
    return Float32Array.from(this.tensors[tensor.id]!.subarray(0, rows * tensor.width));
  }

  [Symbol.dispose](): void {
    this.#expanded.clear();
  }
}

function embed(state: ReferenceState, op: OpOf<"embed">): void {
  const { tokenIds, positions } = state.step;
  const rows = {
    token: (t: number) => tokenIds[t]!,
    position: (t: number) => positions[t]!,
    first: () => 0,
  };
  for (let t = 0; t < state.step.numTokens; t++) {
    const source = state.weightRow(op.weight, rows[op.row](t));
    const target = rowOf(state, op.output, t);
    for (let i = 0; i < target.length; i++) target[i] = source[i]! * op.scale;
  }
}

/** The rows that a product multiplies. */
function inputRows(
  state: ReferenceState,
  op: { input: Tensor; inputNorm: RowNorm | undefined },
): Float64Array[] {
  return Array.from({ length: rowsOf(state.step, op.input) }, (_, row) => {
    const x = rowOf(state, op.input, row);
    return op.inputNorm === undefined ? x : normalized(state, op.inputNorm, x);
  });
}

function linear(state: ReferenceState, op: OpOf<"linear">): void {
  const inputs = inputRows(state, op);
  for (const { weight, bias, output } of op.outputs) {
    const biases = bias && state.weightRow(bias, 0);
    const factors = inputs.map((x) => factorsFor(weight, x));
    for (let n = 0; n < weight.rows; n++) {
      const w = state.weightRow(weight, n);
      factors.forEach((x, row) => {
        const y = rowOf(state, output, row);
        const value = dot(x, w) + (biases?.[n] ?? 0);
        y[n] = op.epilogue === "accumulate" ? y[n]! + value : value;
      });
    }
  }
}

function linearGlu(state: ReferenceState, op: OpOf<"linearGlu">): void {
  const gateBias = op.gateBias && state.weightRow(op.gateBias, 0);
  const upBias = op.upBias && state.weightRow(op.upBias, 0);
  const inputs = inputRows(state, op).map((x) => {
    return [factorsFor(op.gate, x), factorsFor(op.up, x)] as const;
  });
  for (let n = 0; n < op.gate.rows; n++) {
    const gate = state.weightRow(op.gate, n);
    const up = state.weightRow(op.up, n);
    inputs.forEach(([forGate, forUp], row) => {
      const g = dot(forGate, gate) + (gateBias?.[n] ?? 0);
      const u = dot(forUp, up) + (upBias?.[n] ?? 0);
      rowOf(state, op.output, row)[n] = gated(op.activation, g, u);
    });
  }
}

function measure({ weights }: Plan, { arenaBytes, kvBytes }: MemoryLayout): PlanMemory {
  return { arenaBytes, kvBytes, scratchBytes: 0, tableBytes: layoutTables(weights).bytes };
}

export const referenceBackend: Backend = {
  name: "reference",
  supportsType: (typeId) => {
    const type = quantTypeOf(typeId);
    return type !== undefined && canDequantize(type.name);
  },
  canInterleave: () => false,
  measure,
  load: (plan, layout, options) => new ReferenceSession(plan, layout, options),
};
