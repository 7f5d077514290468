// Low-rank adapters as a plan sees them: which weights they change, by which pair of factors, the
// ops that this takes, and whether the model has what they were made for. Where the factors lie
// is the engine's matter.
import { TinferError } from "../core/errors.ts";
import {
  type LinearOutput,
  maxLinearOutputs,
  type Op,
  type OpOf,
  type Rows,
  type Table,
  type Tensor,
  type Weight,
} from "./ops.ts";

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
  /** `[rank, cols]`; of a table that tokens look up `[rows, rank]`. */
  readonly a: Factor;
  /** `[rows, rank]`; of a table that tokens look up `[cols, rank]`. */
  readonly b: Factor;
  readonly gain: number;
}

export interface Adapter {
  /** What messages call it. */
  readonly name: string;
  /** By the name of the model's tensor. */
  readonly updates: ReadonlyMap<string, LowRank>;
}

/** What one adapter adds to one weight. */
interface Update extends LowRank {
  /** The adapter's place in the plan's list. */
  readonly adapter: number;
  readonly rank: number;
}

/** How a weight is read: rows times an input, or rows by number. */
type WeightUse = "product" | "table";

/** What the ops of adapters are made with. */
interface Parts {
  tensor(rows: Rows, width: number): Tensor;
  factorRows(factor: Factor, part?: Pick<Weight, "rows" | "slice">): Weight;
}

/** States what adapters add to a plan's ops; knows at the end which updates met no weight. */
export class AdapterTable {
  readonly #adapters: readonly Adapter[];
  readonly #parts: Parts;
  readonly #used: Set<string>[];

  constructor(adapters: readonly Adapter[], parts: Parts) {
    if (adapters.length > maxAdapters) {
      throw new TinferError("usage", `${adapters.length} adapters, at most ${maxAdapters}`, {
        hint: "merge some of them, or leave some out",
      });
    }
    this.#adapters = adapters;
    this.#parts = parts;
    this.#used = adapters.map(() => new Set());
  }

  /**
   * What follows a product: for each update its narrow product with `a`, scaled, whose product
   * with `b` is added. `target` is the adapters' name for a lone weight, where it differs.
   */
  addedToProduct(input: Tensor, outputs: readonly LinearOutput[], target?: string): Op[] {
    const updates = outputs.flatMap(({ weight, output }) => {
      const found = this.#updatesOf(weight, "product", target);
      return found.map((update) => ({ ...update, weight, output }));
    });
    const ops: Op[] = [];
    for (let first = 0; first < updates.length; first += maxLinearOutputs) {
      const some = updates.slice(first, first + maxLinearOutputs);
      const narrow = some.map(({ a, rank }): LinearOutput => {
        const output = this.#parts.tensor(input.rows, rank);
        return { weight: this.#parts.factorRows(a), bias: undefined, output };
      });
      const product = { input, inputNorm: undefined, outputs: narrow };
      ops.push({ kind: "linear", epilogue: "store", ...product });
      some.forEach((update, index) => {
        const b = this.#parts.factorRows(update.b, update.weight);
        ops.push(...added(narrow[index]!.output, update, b, update.output));
      });
    }
    return ops;
  }

  /** What follows a look-up in a table: the same with a look-up in place of the narrow product. */
  addedToTable({ weight, output, scale, row }: Omit<OpOf<"embed">, "kind">): Op[] {
    return this.#updatesOf(weight, "table").flatMap((update): Op[] => {
      const narrow = this.#parts.tensor(output.rows, update.rank);
      const a = this.#parts.factorRows(update.a);
      const b = this.#parts.factorRows(update.b);
      const lookUp = { weight: a, output: narrow, scale, row };
      return [{ kind: "embed", ...lookUp }, ...added(narrow, update, b, output)];
    });
  }

  /** Updates of `weight`, which adapters know under the name `target`; checks their shapes. */
  #updatesOf(weight: Weight, use: WeightUse, target = weight.name): Update[] {
    return this.#adapters.flatMap(({ name, updates }, adapter) => {
      const update = updates.get(target);
      if (update === undefined) return [];
      this.#used[adapter]!.add(target);
      return [{ ...update, adapter, rank: checkedRank(name, target, update, weight, use) }];
    });
  }

  has(weight: Weight): boolean {
    return this.#adapters.some(({ updates }) => updates.has(weight.name));
  }

  /**
   * Throws where an adapter changes a tensor that no op took its update for. `shapeOf` is of the
   * model's tensors, `isBeyond` says which tensors this plan ends before.
   */
  requireAllUsed(
    shapeOf: (tensor: string) => readonly number[] | undefined,
    isBeyond: (tensor: string) => boolean,
  ): void {
    this.#adapters.forEach(({ name, updates }, adapter) => {
      for (const target of updates.keys()) {
        if (this.#used[adapter]!.has(target) || isBeyond(target)) continue;
        throw unusedError(name, target, shapeOf(target));
      }
    });
  }
}

/** output += (the adapter's scale * gain * narrow) · bᵀ */
function added(narrow: Tensor, { adapter, gain }: Update, b: Weight, output: Tensor): Op[] {
  const outputs = [{ weight: b, bias: undefined, output }];
  const product = { input: narrow, inputNorm: undefined, outputs };
  return [
    { kind: "adapterScale", output: narrow, adapter, gain },
    { kind: "linear", epilogue: "accumulate", ...product },
  ];
}

function unusedError(adapter: string, target: string, shape: readonly number[] | undefined) {
  if (shape === undefined) {
    const message = `adapter ${adapter} changes tensor '${target}', which the model does not have`;
    return new TinferError("invalidFile", message, {
      hint: "it was made for another model; general.base_model in `tinfer show` may name it",
    });
  }
  const what = shape.length === 3 ? "the experts' tensor" : "tensor";
  const message = `adapter ${adapter} changes ${what} '${target}', which is not supported`;
  return new TinferError("unsupported", message, {
    hint: "adapters may change products of whole matrices and the token embedding; merge this one into the model with the tool that made it",
  });
}

/** The rank, when both factors fit each other and the weight. */
function checkedRank(
  adapter: string,
  target: string,
  { a, b }: LowRank,
  { rows, cols, slice }: Weight,
  use: WeightUse,
): number {
  const wholeRows = slice === undefined ? rows : slice.count;
  const isTable = use === "table";
  const rank = (isTable ? a.shape[1] : a.shape[0]) ?? 0;
  const wantedA = isTable ? [wholeRows, rank] : [rank, cols];
  const wantedB = isTable ? [cols, rank] : [wholeRows, rank];
  for (const [factor, wanted] of [
    [a, wantedA],
    [b, wantedB],
  ] as const) {
    const { shape } = factor;
    if (shape.length === 2 && wanted.every((size, i) => size > 0 && shape[i] === size)) continue;
    const rest = `tensor '${target}' of the model is [${wholeRows}, ${cols}]`;
    const found = `is [${shape.join(", ")}] instead of [${wanted.join(", ")}]`;
    throw new TinferError("invalidFile", `adapter ${adapter}: ${factor.name} ${found}; ${rest}`, {
      hint: "it was made for another model, or its two factors differ in rank",
    });
  }
  return rank;
}
