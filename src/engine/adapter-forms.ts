// Brings an adapter's updates to the tensors that plans know them by, whichever form the model and
// the adapter have: experts as one stack for gate, up and down each, latent heads apart as keys and
// values. What changes form becomes a table.
import { assert, TinferError } from "../core/errors.ts";
import type { Factor, Lengths, LowRank } from "../plan/adapters.ts";
import type { Table } from "../plan/ops.ts";

/** Sizes of the model that forms depend on. */
export interface AdaptedSizes {
  readonly numExperts: number;
  /** Of a latent head: rows of its key and of its value; undefined: there are none. */
  readonly latentHead: { readonly keyDim: number; readonly valueDim: number } | undefined;
}

/** A factor whose values are read when they are needed. */
export type FloatFactor = Factor & { readonly constant: Table };
/** Floats of a factor, wherever it lies. */
export type AsFloats = (factor: Factor) => FloatFactor;

type Updates = ReadonlyMap<string, LowRank>;

const single = /^(blk\.\d+\.ffn_(?:gate|up|down))\.(\d+)\.weight$/;
const fused = /^(blk\.\d+)\.ffn_gate_up_exps\.weight$/;
const joint = /^(blk\.\d+)\.attn_kv_b\.weight$/;

/** `name` is what messages call the adapter. */
export function knownForms(
  name: string,
  updates: Updates,
  sizes: AdaptedSizes,
  asFloats: AsFloats,
): Map<string, LowRank> {
  const known = new Map<string, LowRank>();
  const experts = new Map<string, Map<number, LowRank>>();
  const floats = ({ a, b, ...rest }: LowRank) => ({ ...rest, a: asFloats(a), b: asFloats(b) });
  for (const [target, update] of updates) {
    const [, stack, expert] = single.exec(target) ?? [];
    const [, fusedLayer] = fused.exec(target) ?? [];
    const [, jointLayer] = joint.exec(target) ?? [];
    if (stack !== undefined) {
      const known = experts.get(stack) ?? new Map<number, LowRank>();
      experts.set(stack, known.set(Number(expert), update));
    } else if (fusedLayer !== undefined) {
      const halves = halvesOf(floats(update));
      known.set(`${fusedLayer}.ffn_gate_exps.weight`, halves[0]);
      known.set(`${fusedLayer}.ffn_up_exps.weight`, halves[1]);
    } else if (jointLayer !== undefined && sizes.latentHead !== undefined) {
      const { keys, values } = headsOf(name, target, floats(update), sizes.latentHead);
      known.set(`${jointLayer}.attn_k_b.weight`, keys);
      known.set(`${jointLayer}.attn_v_b.weight`, values);
    } else known.set(target, update);
  }
  for (const [stack, own] of experts) {
    const target = `${stack}_exps.weight`;
    if (known.has(target)) throw twice(name, target);
    known.set(target, stackOf(name, target, own, sizes.numExperts, asFloats));
  }
  return known;
}

interface Floats extends LowRank {
  readonly a: FloatFactor;
  readonly b: FloatFactor;
}

function twice(name: string, target: string): TinferError {
  return new TinferError("invalidFile", `adapter ${name} changes '${target}' in two forms`, {
    hint: "convert or download it again",
  });
}

const sizeOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

function table(factor: Factor, part: string, shape: readonly number[], make: () => Float32Array) {
  const constant = { length: sizeOf(shape), make };
  return { name: `${factor.name}${part}`, shape, typeId: f32TypeId, constant };
}
const f32TypeId = 0;

/** Gates and ups of experts whose rows lie one after the other in each. */
function halvesOf(update: Floats): [LowRank, LowRank] {
  const { b } = update;
  const height = b.shape.at(-2)! / 2;
  const part = (which: 0 | 1): LowRank => {
    const order = (row: number) => row + height * (Math.floor(row / height) + which);
    const shape = [...b.shape.slice(0, -2), height, b.shape.at(-1)!];
    const factor = pickedRows(b, which === 0 ? " (gate)" : " (up)", shape, order);
    const { lengths } = update;
    const numRows = sizeOf(shape) / shape.at(-1)!;
    return { ...update, b: factor, lengths: lengths && pickedLengths(lengths, numRows, order) };
  };
  return [part(0), part(1)];
}

function pickedLengths(lengths: Lengths, rows: number, order: (row: number) => number): Lengths {
  return { ...lengths, values: picked(lengths.values, 1, rows, order) };
}

function pickedRows(
  factor: FloatFactor,
  part: string,
  shape: readonly number[],
  order: (row: number) => number,
): FloatFactor {
  const cols = shape.at(-1)!;
  const { make } = picked(factor.constant, cols, sizeOf(shape) / cols, order);
  return table(factor, part, shape, make);
}

/** Row `i` of the result is row `order(i)`, each of `cols` values. */
function picked(source: Table, cols: number, rows: number, order: (row: number) => number): Table {
  const make = () => {
    const values = source.make();
    const output = new Float32Array(rows * cols);
    for (let row = 0; row < rows; row++) {
      const from = order(row) * cols;
      output.set(values.subarray(from, from + cols), row * cols);
    }
    return output;
  };
  return { length: rows * cols, make };
}

/** Keys are needed transposed: (B A)ᵀ = Aᵀ Bᵀ, so that their factors change places. */
function headsOf(
  name: string,
  target: string,
  update: Floats,
  { keyDim, valueDim }: { readonly keyDim: number; readonly valueDim: number },
): { keys: LowRank; values: LowRank } {
  const { a, b, gain, lengths } = update;
  const rank = b.shape.at(-1)!;
  const stride = keyDim + valueDim;
  const heads = sizeOf(b.shape) / rank / stride;
  if (!Number.isInteger(heads)) {
    const found = `${b.name} is [${b.shape.join(", ")}], which are no heads of ${stride} rows`;
    throw new TinferError("invalidFile", `adapter ${name}, tensor '${target}': ${found}`, {
      hint: "it was made for another model",
    });
  }
  assert(lengths === undefined, "joint heads come from files, which have no lengths");
  const keyRows = picked(b.constant, rank, heads * keyDim, (row) => {
    return Math.floor(row / keyDim) * stride + (row % keyDim);
  });
  const cols = a.shape.at(-1)!;
  const valueRow = (row: number) => Math.floor(row / valueDim) * stride + keyDim + (row % valueDim);
  return {
    keys: {
      a: table(b, " (keys)", [heads, rank, keyDim], () => turned(keyRows.make(), keyDim, rank)),
      b: table(a, " (keys)", [cols, rank], () => turned(a.constant.make(), rank, cols)),
      gain,
    },
    values: { a, b: pickedRows(b, " (values)", [heads, valueDim, rank], valueRow), gain },
  };
}

/** Matrices `[rows, cols]`, one after the other, transposed each. */
export function turned(values: Float32Array, rows: number, cols: number): Float32Array {
  const output = new Float32Array(values.length);
  const size = rows * cols;
  for (let i = 0; i < values.length; i++) {
    const inMatrix = i % size;
    const row = Math.floor(inMatrix / cols);
    output[i - inMatrix + (inMatrix % cols) * rows + row] = values[i]!;
  }
  return output;
}

/**
 * Updates of single experts as one of all: experts without one get zeros, lower ranks too. Gains
 * may differ, and become part of the factors.
 */
function stackOf(
  name: string,
  target: string,
  own: ReadonlyMap<number, LowRank>,
  count: number,
  asFloats: AsFloats,
): LowRank {
  const updates = [...own.values()];
  const { a, b } = updates[0]!;
  const rank = updates.reduce((most, update) => Math.max(most, update.b.shape.at(-1)!), 0);
  const [cols, rows] = [a.shape.at(-1)!, b.shape.at(-2)!];
  for (const [expert, update] of own) {
    const own = update.b.shape.at(-1)!;
    const fits = update.a.shape.length === 2 && update.b.shape.length === 2 && expert < count;
    if (fits && isMatrix(update.a, own, cols) && isMatrix(update.b, rows, own)) continue;
    const found = `${update.b.name} does not fit ${b.name}, or expert ${expert} of ${count}`;
    throw new TinferError("invalidFile", `adapter ${name}, tensor '${target}': ${found}`, {
      hint: "it was made for another model, or its two factors differ in rank",
    });
  }
  const fill = (
    size: number,
    put: (all: Float32Array, expert: number, update: LowRank) => void,
  ) => {
    return () => {
      const all = new Float32Array(size);
      for (const [expert, update] of own) put(all, expert, update);
      return all;
    };
  };
  const factorA = fill(count * rank * cols, (all, expert, { a, gain }) => {
    const scaled = asFloats(a)
      .constant.make()
      .map((value) => value * gain);
    all.set(scaled, expert * rank * cols);
  });
  const factorB = fill(count * rows * rank, (all, expert, { b }) => {
    const [values, width] = [asFloats(b).constant.make(), b.shape.at(-1)!];
    for (let row = 0; row < rows; row++) {
      const part = values.subarray(row * width, (row + 1) * width);
      all.set(part, (expert * rows + row) * rank);
    }
  });
  const makeLengths = () => {
    const all = new Float32Array(count * rows).fill(Number.NaN);
    for (const [expert, { lengths }] of own) {
      if (lengths !== undefined) all.set(lengths.values.make(), expert * rows);
    }
    return all;
  };
  const hasLengths = updates.some(({ lengths }) => lengths !== undefined);
  const values = { length: count * rows, make: makeLengths };
  return {
    a: table(a, " (stack)", [count, rank, cols], factorA),
    b: table(b, " (stack)", [count, rows, rank], factorB),
    gain: 1,
    lengths: hasLengths ? { values, of: "rows" } : undefined,
  };
}

function isMatrix({ shape }: Factor, rows: number, cols: number): boolean {
  return shape[0] === rows && shape[1] === cols;
}
