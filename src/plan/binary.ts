// Writes a plan and its memory layout in the executor's binary form (kernels/plan.zig).
import { assert } from "../core/errors.ts";
import type { MemoryLayout, PlanLimits } from "./arena.ts";
import type { Plan } from "./builder.ts";
import { routeCounters } from "./expert-counters.ts";
import {
  type ExpertWeights,
  embedRows,
  epilogues,
  gates,
  groupScores,
  kvTypes,
  maxLinearOutputs,
  normKinds,
  type Op,
  type OpOf,
  opcodes,
  type Routing,
  type RowNorm,
  ropePairings,
  scorings,
  type Tensor,
  unaryFunctions,
  type Weight,
} from "./ops.ts";

const magic = 0x4e4c5054;
const version = 4;
const none = 0xffffffff;
const headerBytes = 64;
const tensorBytes = 16;
const weightBytes = 56;
const cacheBytes = 32;
const opBytes = 256;

/** One field of an op record: an unsigned word or, as `f32`, a float. */
type Word = number | { readonly f32: number };

const id = (operand: Tensor | Weight | undefined) => operand?.id ?? none;
const indexIn = <T>(list: readonly T[], value: T) => list.indexOf(value);

function rowNormWords(norm: RowNorm | undefined): Word[] {
  if (norm === undefined) return [none, none, none, 0];
  return [indexIn(normKinds, norm.norm), id(norm.weight), id(norm.bias), { f32: norm.epsilon }];
}

/** The first of a stack whose ids follow one another. */
function firstId(experts: ExpertWeights): number {
  const first = experts[0]!.id;
  assert(
    experts.every((expert, index) => expert.id === first + index),
    "experts lie one after another in the plan",
  );
  return first;
}

function routingWords(routing: Routing): Word[] {
  const { scoring, selectionBias, numExpertsPerToken, numGroups, numGroupsUsed } = routing;
  const counts = [numExpertsPerToken, numGroups, numGroupsUsed];
  const groupScore = indexIn(groupScores, routing.groupScore);
  const isNormalised = routing.normalise ? 1 : 0;
  return [
    id(selectionBias),
    indexIn(scorings, scoring),
    ...counts,
    groupScore,
    isNormalised,
    { f32: routing.scale },
  ];
}

/**
 * The words after the opcode, in the field order of the op's struct in kernels/plan.zig; a route's
 * first counter follows.
 */
function wordsOf(op: Op): Word[] {
  switch (op.kind) {
    case "embed":
      return [
        ...[op.weight.id, op.output.id],
        ...[{ f32: op.scale * op.weight.gain }, indexIn(embedRows, op.row)],
      ];
    case "gatherRows":
      return [op.input.id, op.output.id];
    case "norm":
      return [op.input.id, op.output.id, ...rowNormWords(op.rowNorm), op.groupWidth];
    case "unary":
      return [op.output.id, indexIn(unaryFunctions, op.function), { f32: op.parameter }];
    case "add":
      return [op.input.id, op.output.id, { f32: op.scale }];
    case "glu":
      return [op.gate.id, op.up.id, op.output.id, indexIn(gates, op.activation)];
    case "positionScale":
      return [op.output.id, op.interval, op.offset, { f32: op.factor }];
    case "adapterScale":
      return [op.output.id, op.adapter, { f32: op.gain }];
    case "copyColumns": {
      const from = [op.inputStart, op.inputStride];
      const to = [op.outputStart, op.outputStride];
      return [op.input.id, op.output.id, op.count, op.width, ...from, ...to];
    }
    case "magnitude": {
      const operands = [op.input, op.routing, op.lengths, op.bias, op.output].map(id);
      return [...operands, op.adapter, { f32: op.gain }];
    }
    case "slotLinear":
    case "sumSlots":
    case "scaleSlots":
    case "expertGlu":
    case "expertLinear":
      return slotWords(op);
    case "linear": {
      assert(op.outputs.length <= maxLinearOutputs, "linear has too many outputs");
      const outputs = op.outputs.flatMap((o) => [o.weight.id, id(o.bias), o.output.id]);
      const head = [op.input.id, ...rowNormWords(op.inputNorm)];
      return [...head, indexIn(epilogues, op.epilogue), op.outputs.length, ...outputs];
    }
    case "linearGlu": {
      const weights = [op.gate.id, id(op.gateBias), op.up.id, id(op.upBias)];
      const head = [op.input.id, ...rowNormWords(op.inputNorm), ...weights];
      return [...head, op.output.id, indexIn(gates, op.activation)];
    }
    case "route":
      return [op.logits.id, op.output.id, ...routingWords(op.routing)];
    case "rotations":
      return [op.frequencies.id, op.output.id, { f32: op.magnitude }];
    case "qkvPrep": {
      const operands = [op.q.id, op.k.id, op.v.id, id(op.rotations), op.cache.id];
      return [...operands, op.numHeads, indexIn(ropePairings, op.pairing)];
    }
    case "attentionPaged": {
      const operands = [op.q.id, op.output.id, op.cache.id, op.numHeads];
      const visible = [op.causal ? 1 : 0, op.windowLen, op.chunkLen];
      return [...operands, { f32: op.scale }, ...visible, { f32: op.softcap }, id(op.sinks)];
    }
    case "sample":
      return [op.logits.id];
  }
}

type SlotOp = OpOf<"slotLinear" | "sumSlots" | "scaleSlots" | "expertGlu" | "expertLinear">;

/** The same of ops whose rows have slots. */
function slotWords(op: SlotOp): Word[] {
  switch (op.kind) {
    case "slotLinear": {
      const weights = [firstId(op.weights), id(op.bias), op.output.id, op.weights.length];
      return [op.input.id, id(op.routing), ...weights, indexIn(epilogues, op.epilogue)];
    }
    case "sumSlots": {
      const how = [indexIn(epilogues, op.epilogue), op.isWeighted ? 1 : 0];
      return [op.input.id, op.routing.id, op.output.id, ...how];
    }
    case "scaleSlots":
      return [op.input.id, op.routing.id, op.output.id];
    case "expertGlu": {
      const gate = [firstId(op.gate), id(op.gateBias)];
      const up = [firstId(op.up), id(op.upBias)];
      const rest = [op.output.id, op.gate.length, indexIn(gates, op.activation)];
      return [op.input.id, op.routing.id, ...gate, ...up, ...rest];
    }
    case "expertLinear": {
      const weights = [firstId(op.weights), id(op.bias), op.output.id, op.weights.length];
      const how = [indexIn(epilogues, op.epilogue), op.isWeighted ? 1 : 0];
      return [op.input.id, op.routing.id, ...weights, ...how];
    }
  }
}

/** Where each of a plan's weights lies in memory, and how. */
export interface WeightPlaces {
  readonly addresses: BigUint64Array<ArrayBuffer>;
  /** 1: 16 rows lie side by side (kernels/interleave.zig); 0: one row after another. */
  readonly layouts: Uint32Array<ArrayBuffer>;
}

/** Room for the places of so many weights; all of them still at 0 and in rows. */
export function makePlaces(numWeights: number): WeightPlaces {
  return { addresses: new BigUint64Array(numWeights), layouts: new Uint32Array(numWeights) };
}

export function encodePlan(
  plan: Plan,
  limits: PlanLimits,
  layout: MemoryLayout,
  places: WeightPlaces,
): Uint8Array<ArrayBuffer> {
  const { tensors, weights, caches, ops } = plan;
  const tensorsStart = headerBytes;
  const weightsStart = tensorsStart + tensors.length * tensorBytes;
  const cachesStart = weightsStart + weights.length * weightBytes;
  const opsStart = cachesStart + caches.length * cacheBytes;
  const bytes = new Uint8Array(opsStart + ops.length * opBytes);
  const view = new DataView(bytes.buffer);
  const u32 = (offset: number, value: number) => view.setUint32(offset, value, true);
  const u64 = (offset: number, value: number | bigint) =>
    view.setBigUint64(offset, BigInt(value), true);

  const counts = [tensors.length, weights.length, caches.length, ops.length];
  const { maxTokens, maxOutputs, maxSequences, maxBlocksPerSequence, numBlocks } = limits;
  const sizes = [maxTokens, maxOutputs, maxSequences, maxBlocksPerSequence, numBlocks];
  const header = [magic, version, ...counts, ...sizes, plan.vocabSize];
  header.forEach((value, index) => {
    u32(index * 4, value);
  });
  u64(48, layout.arenaBytes);
  u64(56, layout.kvBytes);

  tensors.forEach((tensor, index) => {
    const at = tensorsStart + index * tensorBytes;
    u64(at, layout.tensorOffsets[index]!);
    u32(at + 8, tensor.width);
    u32(at + 12, tensor.rows === "tokens" ? 0 : 1);
  });
  weights.forEach((weight, index) => {
    const at = weightsStart + index * weightBytes;
    const { typeId, rows, cols, gain, scales } = weight;
    const { blockRows = 0, blockCols = 0, firstRow = 0 } = scales ?? {};
    u64(at, places.addresses[index]!);
    [typeId, rows, cols].forEach((value, i) => {
      u32(at + 16 + i * 4, value);
    });
    view.setFloat32(at + 28, gain, true);
    const layout = places.layouts[index]!;
    [id(scales?.weight), blockRows, blockCols, firstRow, layout].forEach((value, i) => {
      u32(at + 32 + i * 4, value);
    });
  });
  caches.forEach((cache, index) => {
    const at = cachesStart + index * cacheBytes;
    u64(at, layout.cacheOffsets[index]!);
    const types = [indexIn(kvTypes, limits.kvTypeK), indexIn(kvTypes, limits.kvTypeV)];
    [cache.numKvHeads, cache.headDim, cache.valueDim, ...types].forEach((value, i) => {
      u32(at + 8 + i * 4, value);
    });
  });
  const counters = new Map<Op, number>(routeCounters(ops).map(({ op, first }) => [op, first]));
  ops.forEach((op, index) => {
    const at = opsStart + index * opBytes;
    u32(at, opcodes[op.kind]);
    const words = wordsOf(op);
    if (op.kind === "route") words.push(counters.get(op)!);
    words.forEach((word, i) => {
      if (typeof word === "number") u32(at + 4 + i * 4, word);
      else view.setFloat32(at + 4 + i * 4, word.f32, true);
    });
  });
  return bytes;
}
