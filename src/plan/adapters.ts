// Low-rank adapters as a plan sees them: which weights they change, by which pair of factors, and
// whether the model has what they were made for. The ops that this takes are `adapter-ops.ts`;
// where the factors lie is the engine's matter.
import { TinferError } from "../core/errors.ts";
import type { ExpertWeights, Table, Weight } from "./ops.ts";

/** Adapters of one plan; the step data holds a scale of each for every token row. */
export const maxAdapters = 16;

/** One of the two factors: a tensor of the adapter's file, or values that were made from it. */
export interface Factor {
  readonly name: string;
  readonly shape: readonly number[];
  /** GGUF type number. */
  readonly typeId: number;
  readonly constant?: Table;
}

/** W x becomes W x + scale * gain * b (a x), the scale being the adapter's in the step. */
export interface LowRank {
  /**
   * `[rank, cols]`; of a stack, experts or heads, `[count, rank, cols]`, or the same for all; of a
   * table that tokens look up `[rows, rank]`.
   */
  readonly a: Factor;
  /** `[rows, rank]`; of a stack `[count, rows, rank]`, or the same; of a table `[cols, rank]`. */
  readonly b: Factor;
  readonly gain: number;
  readonly lengths?: Lengths | undefined;
}

/**
 * DoRA (arXiv 2402.09353): the length that each output's part of the sum W + scale * gain * b a is
 * brought to; NaN: that of W's part.
 */
export interface Lengths {
  readonly values: Table;
  /** Where outputs lie: tables and transposed matrices have them in columns. */
  readonly of: "rows" | "columns";
}

export interface Adapter {
  /** What messages call it. */
  readonly name: string;
  /** By the name of the model's tensor. */
  readonly updates: ReadonlyMap<string, LowRank>;
}

/** What one adapter adds to one weight, or to each of a stack. */
export interface Update extends LowRank {
  /** The adapter's place in the plan's list. */
  readonly adapter: number;
  readonly rank: number;
  /** Where each matrix' part begins: its row of the tensor, and of the two factors. */
  readonly places: readonly { readonly row: number; readonly a: number; readonly b: number }[];
}

/** How a weight is read: rows times an input, or rows by number. */
type WeightUse = "product" | "table";

type ShapeOf = (tensor: string) => readonly number[] | undefined;

/** Finds updates of weights; knows at the end which met none. */
export class AdapterTable {
  readonly #adapters: readonly Adapter[];
  readonly #shapeOf: ShapeOf;
  readonly #used: Set<string>[];

  /** `shapeOf` is of the model's tensors. */
  constructor(adapters: readonly Adapter[], shapeOf: ShapeOf) {
    if (adapters.length > maxAdapters) {
      throw new TinferError("usage", `${adapters.length} adapters, at most ${maxAdapters}`, {
        hint: "merge some of them, or leave some out",
      });
    }
    this.#adapters = adapters;
    this.#shapeOf = shapeOf;
    this.#used = adapters.map(() => new Set());
  }

  /**
   * Updates of `weights`, all parts of one tensor or a stack, which adapters know under the name of
   * their tensor, or as a whole under `target`. Checks the shapes of the factors.
   */
  updatesOf(weights: ExpertWeights, use: WeightUse, target?: string): Update[] {
    const [{ name: own }] = weights as [Weight];
    return this.#adapters.flatMap(({ name, updates }, adapter) => {
      const key = target ?? own;
      const update = updates.get(key);
      if (update === undefined) return [];
      this.#used[adapter]!.add(key);
      const rows = key === own ? this.#ownRows(weights) : stackRows(weights);
      const fitted = fit(update, weights, rows, use);
      if (typeof fitted !== "string") return [{ ...update, adapter, ...fitted }];
      throw new TinferError("invalidFile", `adapter ${name}: ${fitted}`, {
        hint: "it was made for another model, or its two factors differ in rank",
      });
    });
  }

  /** Rows of the tensor that the weights are parts of, and where each begins. */
  #ownRows(weights: ExpertWeights): TensorRows {
    const [{ name, rows }] = weights as [Weight];
    const shape = this.#shapeOf(name) ?? [];
    const whole = rows === 1 && shape.length === 1 ? 1 : numRows(shape);
    const starts = weights.map(({ slice }) => {
      return slice === undefined ? 0 : (slice.first * whole) / slice.count;
    });
    return { name, whole, starts };
  }

  has(weights: ExpertWeights, target?: string): boolean {
    const key = target ?? (weights as [Weight])[0].name;
    return this.#adapters.some(({ updates }) => updates.has(key));
  }

  /** Whether an adapter sets the lengths of rows, which takes the product by itself. */
  hasLengths({ name }: Weight): boolean {
    return this.#adapters.some(({ updates }) => updates.get(name)?.lengths !== undefined);
  }

  /**
   * Throws where an adapter changes a tensor that no op took its update for. `isBeyond` says which
   * tensors this plan ends before.
   */
  requireAllUsed(isBeyond: (tensor: string) => boolean): void {
    this.#adapters.forEach(({ name, updates }, adapter) => {
      for (const target of updates.keys()) {
        if (this.#used[adapter]!.has(target) || isBeyond(target)) continue;
        throw unusedError(name, target, this.#shapeOf(target));
      }
    });
  }
}

/** The rows that an adapter's update is for. */
interface TensorRows {
  readonly name: string;
  readonly whole: number;
  /** Where each weight begins in them. */
  readonly starts: readonly number[];
}

function numRows(shape: readonly number[]): number {
  return shape.slice(0, -1).reduce((product, size) => product * size, 1);
}

/** Matrices one after the other, wherever the model has them. */
function stackRows(weights: ExpertWeights): TensorRows {
  const [{ name, rows }] = weights as [Weight];
  return { name, whole: weights.length * rows, starts: weights.map((_, index) => index * rows) };
}

/** Rank and places when both factors fit each other and the weights, or what does not. */
function fit(
  { a, b }: LowRank,
  weights: ExpertWeights,
  { name, whole, starts }: TensorRows,
  use: WeightUse,
): Pick<Update, "rank" | "places"> | string {
  const [{ cols }] = weights as [Weight];
  const count = weights.length;
  const isTable = use === "table";
  const rank = (isTable ? a.shape.at(-1) : a.shape.at(-2)) ?? 0;
  const [rowsA, rowsB] = [numRows(a.shape), numRows(b.shape)];
  const height = whole / count;
  const isSharedA = count > 1 && rowsA === rank;
  const isSharedB = count > 1 && rowsB === height;
  const wantedA = isTable ? [whole, rank] : [...stacked(count, isSharedA), rank, cols];
  const wantedB = isTable ? [cols, rank] : [...stacked(count, isSharedB), height, rank];
  for (const [factor, wanted] of [
    [a, wantedA],
    [b, wantedB],
  ] as const) {
    if (isShape(factor.shape, wanted)) continue;
    const tensor = count > 1 ? [count, height, cols] : [whole, cols];
    const found = `is [${factor.shape.join(", ")}] instead of [${wanted.join(", ")}]`;
    return `${factor.name} ${found}; tensor '${name}' of the model is [${tensor.join(", ")}]`;
  }
  const places = starts.map((row, index) => ({
    row,
    a: isTable || isSharedA || count === 1 ? 0 : index * rank,
    b: isTable ? 0 : isSharedB ? row % height : row,
  }));
  return { rank, places };
}

const stacked = (count: number, isShared: boolean) => (count === 1 || isShared ? [] : [count]);

/** Dimensions of one in front do not count. */
function isShape(shape: readonly number[], wanted: readonly number[]): boolean {
  const extra = shape.length - wanted.length;
  if (extra < 0 || shape.slice(0, extra).some((size) => size !== 1)) return false;
  return wanted.every((size, i) => size > 0 && shape[extra + i] === size);
}

function unusedError(adapter: string, target: string, shape: readonly number[] | undefined) {
  if (shape === undefined) {
    const message = `adapter ${adapter} changes tensor '${target}', which the model does not have`;
    return new TinferError("invalidFile", message, {
      hint: "it was made for another model; general.base_model in `tinfer show` may name it",
    });
  }
  const message = `adapter ${adapter} changes tensor '${target}', which is not supported`;
  return new TinferError("unsupported", message, {
    hint: "adapters may change products of matrices and the token embedding; merge this one into the model with the tool that made it",
  });
}
