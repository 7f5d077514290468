// Steps to time tunings with: the products of a loaded model's first layers, its own weights where
// they lie, without anything else of the model.
import type { Backend, Session, WeightMemory } from "../backend/backend.ts";
import type { Tuning } from "../backend/tuning.ts";
import { TinferError } from "../core/errors.ts";
import { layoutMemory, type PlanLimits } from "../plan/arena.ts";
import type { Plan } from "../plan/builder.ts";
import type { Op, Tensor, Weight } from "../plan/ops.ts";

/** Bytes of weights in a step: more than caches hold on most machines, and still milliseconds. */
const wantedBytes = 64 * 2 ** 20;
/** What little a cache keeps of so many is not worth a wrong distance of prefetching. */
const wantedBytesOfOneRow = 192 * 2 ** 20;
const maxRows = 32;

const limits: PlanLimits = {
  ...{ maxTokens: maxRows, maxOutputs: maxRows, maxSequences: 1 },
  ...{ numBlocks: 1, maxBlocksPerSequence: 1, kvTypeK: "f16", kvTypeV: "f16" },
};

/** The plan's products alone, until their weights are enough; undefined where it has none. */
function productsPlan(plan: Plan, memory: WeightMemory, wantedBytes: number): Plan | undefined {
  const tensors: Tensor[] = [];
  const makeTensor = (width: number): Tensor => {
    const tensor: Tensor = { id: tensors.length, rows: "tokens", width };
    tensors.push(tensor);
    return tensor;
  };
  const inputs = new Map<number, Tensor>();
  const inputOf = (width: number) => {
    const known = inputs.get(width) ?? makeTensor(width);
    inputs.set(width, known);
    return known;
  };
  const weights: Weight[] = [];
  const weightIds = new Map<Weight, number>();
  /** The same weight in this plan, which has no more than it reads. */
  const own = (weight: Weight): Weight => {
    const { scales } = weight;
    const ownScales = scales && { scales: { ...scales, weight: own(scales.weight) } };
    const id = weightIds.get(weight) ?? weights.length;
    if (id === weights.length) weights.push({ ...weight, id, ...ownScales });
    weightIds.set(weight, id);
    return weights[id]!;
  };
  const ownBias = (bias: Weight | undefined) => bias && own(bias);
  const ops: Op[] = [];
  let bytes = 0;
  for (const op of plan.ops) {
    if (bytes >= wantedBytes) break;
    if (op.kind === "linear") {
      const outputs = op.outputs.map(({ weight, bias, output }) => {
        return { weight: own(weight), bias: ownBias(bias), output: makeTensor(output.width) };
      });
      const input = inputOf(op.input.width);
      ops.push({ ...op, input, inputNorm: undefined, epilogue: "store", outputs });
      for (const { weight } of op.outputs) bytes += memory.bytes(weight.name);
    } else if (op.kind === "linearGlu") {
      const operands = { input: inputOf(op.input.width), output: makeTensor(op.output.width) };
      const matrices = { gate: own(op.gate), up: own(op.up) };
      const biases = { gateBias: ownBias(op.gateBias), upBias: ownBias(op.upBias) };
      ops.push({ ...op, ...operands, ...matrices, ...biases, inputNorm: undefined });
      bytes += memory.bytes(op.gate.name) + memory.bytes(op.up.name);
    }
  }
  if (ops.length === 0) return undefined;
  const { vocabSize } = plan;
  const used = { weights, caches: [], hidden: undefined, scores: undefined, logits: undefined };
  return { ops, tensors, vocabSize, products: [], ...used };
}

export class TuningProbe implements Disposable {
  /** For one row, and for more; none where the model has no products. */
  readonly sessions: readonly Session[];

  constructor(
    plan: Plan,
    backend: Backend,
    options: { weights: WeightMemory; numThreads: number; cpuVariant: string | undefined },
  ) {
    const own = { limits, cancelWord: undefined };
    using cleanup = new DisposableStack();
    this.sessions = [wantedBytesOfOneRow, wantedBytes].flatMap((bytes) => {
      const products = productsPlan(plan, options.weights, bytes);
      if (products === undefined) return [];
      const layout = layoutMemory(products, limits);
      return [cleanup.use(backend.load(products, layout, { ...own, ...options }))];
    });
    cleanup.move();
  }

  /** Milliseconds of one step of `numRows` rows. */
  stepMs(tuning: Tuning, numRows: number): number {
    const session = this.sessions[numRows === 1 ? 0 : 1]!;
    const { stepData } = session;
    session.tune(tuning);
    stepData.reset();
    stepData.queryStarts[1] = numRows;
    stepData.kvLens[0] = numRows;
    stepData.setCounts(numRows, 0, 1);
    const start = performance.now();
    // What an interrupt cut short is no measurement.
    if (!session.run()) throw new TinferError("cancelled", "interrupted");
    return performance.now() - start;
  }

  [Symbol.dispose](): void {
    for (const session of this.sessions) session[Symbol.dispose]();
  }
}
