// What adapters add to a plan's ops: after a product the two narrow products of each update, its
// scale between them, and, where an adapter sets the lengths of rows (DoRA), what that changes.
// All are sums beside the model's own product, so that a scale of 0 leaves its bits alone.
import { lengthTable, type OutputPlace } from "./adapter-lengths.ts";
import type { AdapterTable, Factor, Update } from "./adapters.ts";
import {
  copyRows,
  type Epilogue,
  type ExpertWeights,
  maxLinearOutputs,
  type Op,
  type OpOf,
  type Rows,
  type Table,
  type Tensor,
  type Weight,
} from "./ops.ts";
import type { WeightReader } from "./weight-table.ts";

/** What the ops of adapters are made with. */
export interface AdapterParts {
  tensor(rows: Rows, width: number): Tensor;
  /** `rows` rows of a factor from each of `starts` on, as weights that follow one another. */
  factorParts(factor: Factor, starts: readonly number[], rows: number): ExpertWeights;
  table(name: string, table: Table, rows: number, cols: number): Weight;
  reader(weights: ExpertWeights): WeightReader;
}

/** A matrix per expert or head with their biases `[count, rows]`. */
export interface ExpertStack {
  readonly weights: ExpertWeights;
  readonly bias: Weight | undefined;
  /** Adapters' name for all of it, where it is not that of their tensor. */
  readonly target?: string | undefined;
}

/** One result of a product; that of a lone matrix is a stack of one. */
export interface ProductOutput extends ExpertStack {
  readonly output: Tensor;
}

/** Products of one input; with `slots` each slot of a row has a matrix of its own. */
export interface AdaptedProduct {
  readonly input: Tensor;
  readonly outputs: readonly ProductOutput[];
  /** `routing` says which of the matrices; without one slot s has matrix s. */
  readonly slots?: { readonly count: number; readonly routing: Tensor | undefined };
  /** By adapter: what its narrow product reads in place of `input`. */
  readonly inputs?: ReadonlyMap<number, Tensor>;
}

type OutputUpdate = Update & ProductOutput;

export class AdapterOps {
  readonly #table: AdapterTable;
  readonly #parts: AdapterParts;

  constructor(table: AdapterTable, parts: AdapterParts) {
    this.#table = table;
    this.#parts = parts;
  }

  /** What follows a product whose outputs hold it, or, where no adapter sets lengths, a sum. */
  addedToProduct(product: AdaptedProduct): Op[] {
    const updates = product.outputs.flatMap((output) => {
      const found = this.#table.updatesOf(output.weights, "product", output.target);
      return found.map((update): OutputUpdate => ({ ...update, ...output }));
    });
    if (updates.length === 0) return [];
    const narrow = this.#narrowProducts(product, updates);
    const wide = (update: OutputUpdate, output: Tensor, epilogue: Epilogue) => {
      const { b, places, weights } = update;
      const starts = places.map((place) => place.b);
      const factor = this.#parts.factorParts(b, starts, weights[0]!.rows);
      const input = narrow.tensors.get(update.a)!;
      return this.#products({ ...product, input }, [{ weights: factor, output }], epilogue);
    };
    // Lengths are set by the model's own product: before anything is added to it.
    const changes: Op[] = [];
    const sums: Op[] = [];
    for (const update of updates) {
      if (update.lengths?.of !== "rows") {
        sums.push(...wide(update, update.output, "accumulate"));
        continue;
      }
      const change = this.#parts.tensor(update.output.rows, update.output.width);
      changes.push(...wide(update, change, "store"));
      const routing = product.slots?.routing;
      const operands = { input: update.output, output: change, ...(routing && { routing }) };
      changes.push(this.#magnitude(update, "rows", operands));
      sums.push({ kind: "add", input: change, output: update.output, scale: 1 });
    }
    return [...narrow.ops, ...changes, ...sums];
  }

  /** The products with `a`, one where several updates share it, times the adapters' scales. */
  #narrowProducts(product: AdaptedProduct, updates: readonly OutputUpdate[]) {
    const numSlots = product.slots?.count ?? 1;
    const tensors = new Map<Factor, Tensor>();
    const byInput = new Map<Tensor, { weights: ExpertWeights; output: Tensor }[]>();
    const scales: Op[] = [];
    for (const { a, rank, places, adapter, gain } of updates) {
      if (tensors.has(a)) continue;
      const input = product.inputs?.get(adapter) ?? product.input;
      const output = this.#parts.tensor(input.rows, numSlots * rank);
      const starts = places.map((place) => place.a);
      const narrow = { weights: this.#parts.factorParts(a, starts, rank), output };
      byInput.set(input, [...(byInput.get(input) ?? []), narrow]);
      scales.push({ kind: "adapterScale", output, adapter, gain });
      tensors.set(a, output);
    }
    const ops = [...byInput].flatMap(([input, outputs]) => {
      return this.#products({ ...product, input }, outputs, "store");
    });
    return { tensors, ops: [...ops, ...scales] };
  }

  #products(
    { input, slots }: AdaptedProduct,
    outputs: readonly { weights: ExpertWeights; output: Tensor }[],
    epilogue: Epilogue,
  ): Op[] {
    if (slots !== undefined) {
      const { routing } = slots;
      return outputs.map((output): Op => {
        return { kind: "slotLinear", input, routing, bias: undefined, ...output, epilogue };
      });
    }
    const ops: Op[] = [];
    for (let first = 0; first < outputs.length; first += maxLinearOutputs) {
      const some = outputs.slice(first, first + maxLinearOutputs).map(({ weights, output }) => {
        return { weight: weights[0]!, bias: undefined, output };
      });
      ops.push({ kind: "linear", input, inputNorm: undefined, epilogue, outputs: some });
    }
    return ops;
  }

  #magnitude(
    update: Update & ExpertStack,
    place: OutputPlace,
    operands: { readonly input: Tensor; readonly routing?: Tensor; readonly output: Tensor },
  ): Op {
    const { adapter, gain, weights, bias } = update;
    const reader = () => this.#parts.reader(weights);
    const { table, rows, cols } = lengthTable(update, weights, place, reader);
    const lengths = this.#parts.table(`${update.b.name}: lengths`, table, rows, cols);
    return { kind: "magnitude", routing: undefined, ...operands, lengths, bias, adapter, gain };
  }

  /**
   * What heads with transposed matrices read where adapters set the lengths of their outputs, which
   * are columns here: W' = diag(c) (W + σ B A) is transposed (W + σ B A)ᵀ diag(c), the input times
   * c. `inputs` is by adapter.
   */
  lengthenedInput(
    input: Tensor,
    weights: ExpertWeights,
    target: string | undefined,
  ): { ops: Op[]; input: Tensor; inputs: ReadonlyMap<number, Tensor> } {
    const updates = this.#table.updatesOf(weights, "product", target);
    const setting = updates.filter(({ lengths }) => lengths?.of === "columns");
    const inputs = new Map<number, Tensor>();
    if (setting.length === 0) return { ops: [], input, inputs };
    const { rows, width } = input;
    const sum = this.#parts.tensor(rows, width);
    const ops: Op[] = [copyRows(input, sum)];
    for (const update of setting) {
      // (c - 1) times the input, then the input itself.
      const own = this.#parts.tensor(rows, width);
      ops.push(copyRows(input, own), {
        kind: "unary",
        output: own,
        function: "scale",
        parameter: 0,
      });
      const matrices = { ...update, weights, bias: undefined };
      ops.push(this.#magnitude(matrices, "columns", { input, output: own }));
      ops.push({ kind: "add", input: own, output: sum, scale: 1 });
      ops.push({ kind: "add", input, output: own, scale: 1 });
      inputs.set(update.adapter, own);
    }
    return { ops, input: sum, inputs };
  }

  /** What follows a look-up in a table: the same with a look-up in place of the narrow product. */
  addedToTable({ weight, output, scale, row }: Omit<OpOf<"embed">, "kind">): Op[] {
    const changes: Op[] = [];
    const sums: Op[] = [];
    for (const update of this.#table.updatesOf([weight], "table")) {
      const { adapter, gain, rank } = update;
      const narrow = this.#parts.tensor(output.rows, rank);
      const [a] = this.#parts.factorParts(update.a, [0], weight.rows) as [Weight];
      const b = this.#parts.factorParts(update.b, [0], weight.cols);
      changes.push({ kind: "embed", weight: a, output: narrow, scale, row });
      changes.push({ kind: "adapterScale", output: narrow, adapter, gain });
      const product = { input: narrow, outputs: [] };
      if (update.lengths === undefined) {
        sums.push(...this.#products(product, [{ weights: b, output }], "accumulate"));
        continue;
      }
      const change = this.#parts.tensor(output.rows, output.width);
      changes.push(...this.#products(product, [{ weights: b, output: change }], "store"));
      const table = { ...update, weights: [weight], bias: undefined };
      changes.push(this.#magnitude(table, "table", { input: output, output: change }));
      sums.push({ kind: "add", input: change, output, scale: 1 });
    }
    return [...changes, ...sums];
  }
}
