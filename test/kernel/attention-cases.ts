// The cases of the attention tests: what differs from model to model, tables that each cache type
// stores without loss, and steps of several sequences whose blocks lie in random order.
import { blockSize, type PlanLimits } from "../../src/plan/arena.ts";
import { PlanBuilder } from "../../src/plan/builder.ts";
import type { KvType, RopePairing } from "../../src/plan/ops.ts";
import { type AttentionRow, canonicalAttention, storeRow } from "./canonical-attention.ts";
import { limitsFor, type SequencePart, type TestStep } from "./executor.ts";
import type { Random } from "./random.ts";
import type { TestWeights } from "./test-weights.ts";

export interface AttentionCase {
  readonly heads: readonly [numHeads: number, numKvHeads: number];
  readonly headDim: number;
  readonly valueDim?: number;
  readonly pairing?: RopePairing;
  /** Dims of each head that are rotated; all by default. */
  readonly rotaryDim?: number;
  readonly kv?: readonly [k: KvType, v: KvType];
  readonly causal?: boolean;
  readonly windowLen?: number;
  readonly chunkLen?: number;
  readonly softcap?: number;
  readonly sinks?: boolean;
  readonly scale?: number;
}

export const attentionCases: readonly AttentionCase[] = [
  { heads: [2, 2], headDim: 8 },
  { heads: [3, 1], headDim: 64, pairing: "interleaved" },
  { heads: [8, 2], headDim: 64, pairing: "half_split", kv: ["f16", "f16"] },
  { heads: [8, 1], headDim: 128, pairing: "interleaved", kv: ["bf16", "bf16"] },
  { heads: [4, 4], headDim: 80, pairing: "half_split", rotaryDim: 32 },
  { heads: [6, 2], headDim: 96, pairing: "interleaved", rotaryDim: 64, kv: ["f16", "bf16"] },
  { heads: [4, 1], headDim: 128, valueDim: 64, pairing: "half_split" },
  { heads: [3, 3], headDim: 24, valueDim: 40, pairing: "interleaved", kv: ["f16", "f16"] },
  { heads: [8, 2], headDim: 64, valueDim: 8, windowLen: 16 },
  { heads: [4, 2], headDim: 64, windowLen: 1, pairing: "half_split" },
  { heads: [4, 2], headDim: 64, windowLen: 33, sinks: true, kv: ["f16", "f16"] },
  { heads: [8, 1], headDim: 64, softcap: 5, pairing: "half_split" },
  { heads: [3, 1], headDim: 80, softcap: 20, windowLen: 40, sinks: true, scale: 1 },
  { heads: [2, 1], headDim: 96, sinks: true, pairing: "interleaved" },
  { heads: [4, 1], headDim: 64, kv: ["q8_0", "q8_0"] },
  { heads: [3, 1], headDim: 128, kv: ["q4_0", "q4_0"] },
  { heads: [2, 2], headDim: 80, valueDim: 48, kv: ["q8_0", "q4_0"] },
  { heads: [8, 1], headDim: 96, valueDim: 24, kv: ["q4_0", "q8_0"], windowLen: 35 },
  { heads: [4, 1], headDim: 64, kv: ["f16", "q8_0"], sinks: true },
  { heads: [6, 2], headDim: 64, kv: ["bf16", "f16"] },
  { heads: [2, 1], headDim: 40, valueDim: 56, kv: ["f16", "bf16"], softcap: 30 },
  { heads: [5, 5], headDim: 8, valueDim: 16, kv: ["q8_0", "f16"] },
  { heads: [4, 2], headDim: 64, chunkLen: 48, pairing: "half_split" },
  { heads: [4, 1], headDim: 32, chunkLen: 20, windowLen: 12, kv: ["f16", "f16"] },
  { heads: [3, 3], headDim: 40, causal: false },
  { heads: [8, 2], headDim: 64, causal: false, kv: ["bf16", "bf16"] },
  { heads: [40, 1], headDim: 96, valueDim: 64, pairing: "interleaved", rotaryDim: 32 },
  { heads: [128, 1], headDim: 288, valueDim: 256, rotaryDim: 32, kv: ["bf16", "bf16"] },
];

export const describeCase = ({ heads, headDim, valueDim = headDim, ...rest }: AttentionCase) =>
  `${heads[0]}/${heads[1]} heads of ${headDim}:${valueDim} ${JSON.stringify(rest)}`;

export const isQuantised = (type: KvType) => type === "q8_0" || type === "q4_0";

/** Keys or values `[rows, heads * dim]` that the cache type stores without loss. */
function storable(random: Random, type: KvType, rows: number, heads: number, dim: number) {
  const values = random.normals(rows * heads * dim);
  if (!isQuantised(type)) return values;
  const [low, high] = type === "q8_0" ? [-127, 127] : [-8, 7];
  for (let start = 0; start < values.length; start += dim) {
    for (let group = 0; group < dim; group += 32) {
      const unit = 2 ** -(type === "q8_0" ? 5 + random.below(3) : 1 + random.below(3));
      const count = Math.min(32, dim - group);
      const peak = random.below(count);
      for (let i = 0; i < count; i++) {
        // The largest magnitude decides the scale, so each group has the lowest code.
        const code = i === peak ? low : Math.min(high, low + 1 + random.below(high - low));
        values[start + group + i] = code * unit;
      }
    }
  }
  return values;
}

export const tableRows = 150;

/** The ops of one case between embedding tables and the attention's output. */
export function buildCase(c: AttentionCase, random: Random, weights: TestWeights) {
  const [numHeads, numKvHeads] = c.heads;
  const { headDim, valueDim = headDim, pairing = "none", rotaryDim = headDim } = c;
  const [kType, vType] = c.kv ?? ["f32", "f32"];
  const tables = {
    q: random.normals(tableRows * numHeads * headDim),
    k: storable(random, kType, tableRows, numKvHeads, headDim),
    v: storable(random, vType, tableRows, numKvHeads, valueDim),
  };
  const b = new PlanBuilder(weights, "hidden");
  const tensor = (name: keyof typeof tables) => {
    const width = tables[name].length / tableRows;
    weights.addFloats(name, tables[name], [tableRows, width]);
    return b.embed(b.weight(name, tableRows, width));
  };
  const qkv = { q: tensor("q"), k: tensor("k"), v: tensor("v") };
  const sinkLogits = random.normals(numHeads, 2);
  weights.addFloats("sinks", sinkLogits);
  const frequencies = Float32Array.from({ length: rotaryDim / 2 }, (_, i) => 0.9 ** i);
  const table = b.constant("frequencies", frequencies);
  const rotations = pairing === "none" ? undefined : b.rotations(table, 1.05);
  const cache = b.cache(numKvHeads, headDim, valueDim);
  b.qkvPrep(qkv, { cache, numHeads, pairing, rotations });
  const { causal = true, windowLen = 0, chunkLen = 0, softcap = 0 } = c;
  const { scale = 1 / Math.sqrt(headDim) } = c;
  const sinks = c.sinks ? b.vector("sinks", numHeads) : undefined;
  const spec = { cache, numHeads, scale, causal, windowLen, chunkLen, softcap, sinks };
  const output = b.attentionPaged(qkv.q, spec);
  const plan = b.finishHidden(output, tableRows);
  return { plan, output, tables, sinks: c.sinks ? sinkLogits : undefined };
}

/**
 * The bits of one query row of a case without rotation, `[numHeads * valueDim]`; `tokenIds` are
 * those of its sequence up to and with the row's own.
 */
export function canonicalRow(
  c: AttentionCase,
  { tables, sinks }: Pick<ReturnType<typeof buildCase>, "tables" | "sinks">,
  tokenIds: readonly number[],
): Float32Array {
  const [numHeads, numKvHeads] = c.heads;
  const { headDim, valueDim = headDim, kv: types = ["f32", "f32"] } = c;
  const { windowLen = 0, chunkLen = 0 } = c;
  const rowOf = (table: Float32Array, id: number, head: number, dim: number) => {
    const start = (id * table.length) / tableRows + head * dim;
    return table.slice(start, start + dim);
  };
  const heads = Array.from({ length: numHeads }, (_, head) => {
    const kvHead = Math.floor(head / (numHeads / numKvHeads));
    const row: AttentionRow = {
      query: rowOf(tables.q, tokenIds.at(-1)!, head, headDim),
      first: Math.max(
        windowLen === 0 ? 0 : tokenIds.length - windowLen,
        chunkLen === 0 ? 0 : tokenIds.length - 1 - ((tokenIds.length - 1) % chunkLen),
        0,
      ),
      keys: tokenIds.map((id) => storeRow(types[0], rowOf(tables.k, id, kvHead, headDim))),
      values: tokenIds.map((id) => storeRow(types[1], rowOf(tables.v, id, kvHead, valueDim))),
      ...{ types, scale: c.scale ?? 1 / Math.sqrt(headDim), softcap: c.softcap ?? 0 },
      sink: sinks?.[head],
    };
    return [...canonicalAttention(row)];
  });
  return Float32Array.from(heads.flat());
}

/** New tokens of each of three sequences, step by step. */
const script = [
  [37, 5, 0],
  [1, 30, 33],
  [1, 1, 1],
  [70, 1, 3],
  [2, 29, 1],
] as const;
const maxTokens = 74;
const numBlocks = 16;
const maxBlocksPerSequence = 5;

/** The script's steps; sequence 1 is at positions far from its place in the cache. */
export function makeSteps(random: Random): TestStep[] {
  const blocks = random.shuffled(numBlocks);
  const blockIds = [0, 1, 2].map((s) =>
    blocks.slice(s * maxBlocksPerSequence, (s + 1) * maxBlocksPerSequence),
  );
  const lens = [0, 0, 0];
  return script.map((counts) => {
    const parts: SequencePart[] = [];
    counts.forEach((count, s) => {
      if (count === 0) return;
      const start = lens[s]!;
      lens[s] = start + count;
      const tokenIds = Array.from({ length: count }, () => random.below(tableRows));
      const used = blockIds[s]!.slice(0, Math.ceil(lens[s] / blockSize));
      parts.push({ tokenIds, start, blockIds: used, position: start + (s === 1 ? 90_000 : 0) });
    });
    return { parts };
  });
}

export const limitsOf = ({ kv = ["f32", "f32"] }: Pick<AttentionCase, "kv">): PlanLimits =>
  limitsFor(maxTokens, {
    ...{ maxSequences: 3, numBlocks, maxBlocksPerSequence, kvTypeK: kv[0], kvTypeV: kv[1] },
  });
