// What an op of a plan has to move and to compute in one step, whatever the machine: the least
// bytes that come from weights, KV cache and activations, and its operations by number format.
import { type PeakKind, peakKinds } from "../backend/backend.ts";
import { blockSize, cacheBlockBytes, type PlanLimits } from "../plan/arena.ts";
import type { Plan } from "../plan/builder.ts";
import {
  type Cache,
  type ExpertWeights,
  type KvType,
  type Op,
  type OpOf,
  operandsOf,
  type Tensor,
  type Weight,
} from "../plan/ops.ts";
import { quantTypeOf, rowBytes } from "../weights/quant-types.ts";

/** One step's sizes. The sequences are alike: each adds `numTokens` to `start` cached tokens. */
export interface StepShape {
  readonly numSequences: number;
  /** Tokens of each sequence in this step, and before it in the cache. */
  readonly numTokens: number;
  readonly start: number;
  /** Rows of each sequence whose logits are wanted. */
  readonly numOutputs: number;
}

export interface OpCost {
  readonly weightBytes: number;
  readonly kvBytes: number;
  readonly activationBytes: number;
  /** Multiply-adds of the products, counted twice. */
  readonly operations: Readonly<Record<PeakKind, number>>;
}

type KvTypes = Pick<PlanLimits, "kvTypeK" | "kvTypeV">;

const noOperations = { int8: 0, bf16: 0, f32: 0 } as const;

export function costOf(op: Op, step: StepShape, kvTypes: KvTypes): OpCost {
  const activationBytes = activationBytesOf(op, step);
  const cost = { weightBytes: 0, kvBytes: 0, activationBytes, operations: noOperations };
  switch (op.kind) {
    case "linear":
      return {
        ...cost,
        ...productCost(
          op.outputs.map((out) => out.weight),
          rowsOf(op.input, step),
        ),
      };
    case "linearGlu":
      return { ...cost, ...productCost([op.gate, op.up], rowsOf(op.input, step)) };
    case "embed": {
      const rows = rowsOf(op.output, step);
      return { ...cost, weightBytes: rows * weightRowBytes(op.weight) };
    }
    case "attentionPaged":
      return { ...cost, ...attentionCost(op, step, kvTypes) };
    case "qkvPrep": {
      const written = rowsOf(op.q, step) * positionBytes(op.cache, kvTypes);
      return { ...cost, activationBytes: activationBytes + written };
    }
    case "expertGlu":
      return { ...cost, ...expertCost([op.gate, op.up], op.routing, step) };
    case "expertLinear":
      return { ...cost, ...expertCost([op.weights], op.routing, step) };
    case "slotLinear":
      if (op.routing !== undefined)
        return { ...cost, ...expertCost([op.weights], op.routing, step) };
      return { ...cost, ...productCost(op.weights, rowsOf(op.input, step)) };
    case "gatherRows":
    case "norm":
    case "unary":
    case "add":
    case "glu":
    case "positionScale":
    case "adapterScale":
    case "magnitude":
    case "copyColumns":
    case "rotations":
    case "route":
    case "sample":
    case "scaleSlots":
    case "sumSlots":
      return cost;
  }
}

function rowsOf(tensor: Tensor, step: StepShape): number {
  const perSequence = tensor.rows === "tokens" ? step.numTokens : step.numOutputs;
  return perSequence * step.numSequences;
}

function activationBytesOf(op: Op, step: StepShape): number {
  const { reads, writes } = operandsOf(op);
  return [...reads, ...writes].reduce((sum, tensor) => {
    return sum + rowsOf(tensor, step) * tensor.width * 4;
  }, 0);
}

function typeNameOf(weight: Weight): string {
  return quantTypeOf(weight.typeId)?.name ?? "f32";
}

export function weightRowBytes(weight: Weight): number {
  const type = quantTypeOf(weight.typeId);
  return type === undefined ? 4 * weight.cols : rowBytes(type.name, weight.cols);
}

/** In which format products with this weight are computed at best. */
function formatOf(weight: Weight): PeakKind {
  switch (typeNameOf(weight)) {
    case "f32":
    case "f16":
    case "f8_e4m3":
    case "f8_e5m2":
      return "f32";
    case "bf16":
      return "bf16";
    default:
      return "int8";
  }
}

/** Weights are read once a step, however many rows there are; not at all without rows. */
function productCost(weights: readonly Weight[], rows: number) {
  const operations: Record<PeakKind, number> = { ...noOperations };
  let weightBytes = 0;
  for (const weight of weights) {
    operations[formatOf(weight)] += 2 * rows * weight.rows * weight.cols;
    if (rows > 0) weightBytes += weight.rows * weightRowBytes(weight);
  }
  return { weightBytes, operations };
}

/**
 * Each token's slots compute with one expert each; an expert that any token chose is read once.
 * Which those are only the routing knows: as many as when all choices are equally likely.
 */
function expertCost(stacks: readonly ExpertWeights[], routing: Tensor, step: StepShape) {
  const rows = rowsOf(routing, step);
  // Expert numbers, then their weights.
  const numSlots = routing.width / 2;
  const operations: Record<PeakKind, number> = { ...noOperations };
  let weightBytes = 0;
  for (const experts of stacks) {
    const one = productCost(experts.slice(0, 1), rows * numSlots);
    const used = experts.length * (1 - (1 - numSlots / experts.length) ** rows);
    weightBytes += one.weightBytes * used;
    for (const kind of peakKinds) operations[kind] += one.operations[kind];
  }
  return { weightBytes, operations };
}

/** Bytes of one cached position, all KV heads. */
function positionBytes(cache: Cache, kvTypes: KvTypes): number {
  return cacheBlockBytes(cache, kvTypes) / blockSize;
}

/** In which format products with cached values of this type are computed. */
function attentionFormat(type: KvType): PeakKind {
  return type === "f32" || type === "f16" ? "f32" : "bf16";
}

/** First position that the one at `index` sees. */
function firstVisible(op: OpOf<"attentionPaged">, index: number): number {
  const window = op.windowLen === 0 ? 0 : Math.max(0, index + 1 - op.windowLen);
  return op.chunkLen === 0 ? window : Math.max(window, index - (index % op.chunkLen));
}

/** End of what it sees of `end` positions. */
function lastVisible(op: OpOf<"attentionPaged">, index: number, end: number): number {
  return op.causal ? index + 1 : end;
}

/** Every visible position is read once a sequence. */
function attentionCost(op: OpOf<"attentionPaged">, step: StepShape, kv: KvTypes) {
  const { start, numTokens, numSequences } = step;
  const end = start + numTokens;
  let visible = 0;
  for (let i = start; i < end; i++) visible += lastVisible(op, i, end) - firstVisible(op, i);
  const read = numTokens === 0 ? 0 : end - firstVisible(op, start);
  const products = 2 * visible * op.numHeads * numSequences;
  const operations: Record<PeakKind, number> = { ...noOperations };
  operations[attentionFormat(kv.kvTypeK)] += products * op.cache.headDim;
  operations[attentionFormat(kv.kvTypeV)] += products * op.cache.valueDim;
  return { kvBytes: read * positionBytes(op.cache, kv) * numSequences, operations };
}

/** What a report calls the ops of a plan, by their place in the model. */
export function groupNames(plan: Plan): string[] {
  const source = new Map<Tensor, string>();
  const preparedQkv = new Set<Tensor>();
  for (const op of plan.ops) {
    if (op.kind === "qkvPrep") for (const part of [op.q, op.k, op.v]) preparedQkv.add(part);
  }
  return plan.ops.map((op) => {
    const { reads, writes } = operandsOf(op);
    const name = groupName(op, plan, preparedQkv, source.get(reads[0]!));
    // A gather hands on what it gathers.
    const origin = op.kind === "gatherRows" ? (source.get(op.input) ?? name) : name;
    for (const tensor of writes) source.set(tensor, origin);
    return name;
  });
}

function groupName(
  op: Op,
  plan: Plan,
  preparedQkv: ReadonlySet<Tensor>,
  inputFrom: string | undefined,
): string {
  switch (op.kind) {
    case "linear": {
      const outputs = op.outputs.map(({ output }) => output);
      if (plan.logits !== undefined && outputs.includes(plan.logits)) return "head";
      if (outputs.some((output) => preparedQkv.has(output))) return "qkv";
      if (inputFrom === "attention") return "attention out";
      return inputFrom === "gate/up" ? "down" : "linear";
    }
    case "linearGlu":
      return "gate/up";
    case "attentionPaged":
      return "attention";
    case "qkvPrep":
      return "rope, cache";
    case "rotations":
      return "rope table";
    case "gatherRows":
      return "gather";
    case "expertGlu":
      return "experts' gate/up";
    case "expertLinear":
      return "experts' down";
    case "route":
    case "scaleSlots":
    case "sumSlots":
      return "routing";
    case "slotLinear":
      return op.routing === undefined ? "heads" : "experts";
    case "unary":
    case "add":
    case "glu":
    case "positionScale":
    case "adapterScale":
    case "magnitude":
    case "copyColumns":
      return "elementwise";
    case "embed":
    case "norm":
    case "sample":
      return op.kind;
  }
}
