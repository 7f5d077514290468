// Collects a model's ops, tensors, weights and caches in the order the model code states them.
// Knows nothing of memory: `arena.ts` places tensors, `binary.ts` writes the executor's form.
import { assert } from "../core/errors.ts";
import { type AdaptedProduct, AdapterOps, type ExpertStack } from "./adapter-ops.ts";
import { type Adapter, AdapterTable } from "./adapters.ts";
import { fuseNorms } from "./fuse-norms.ts";
import { keepInputs, type Product } from "./keep-inputs.ts";
import { type NumberedTensor, numberTensors } from "./number-tensors.ts";
import type {
  Cache,
  EmbedRow,
  Epilogue,
  ExpertWeights,
  Gate,
  LinearOutput,
  NormKind,
  Op,
  RopePairing,
  Routing,
  Rows,
  Tensor,
  UnaryFunction,
  Weight,
} from "./ops.ts";
import { type WeightSource, WeightTable } from "./weight-table.ts";

/**
 * What a plan ends in: sampled tokens, the hidden state alone (embeddings), or the same with the
 * inputs of all products still readable (importance).
 */
export type PlanOutputs = "tokens" | "hidden" | "inputs";

/** A model's program: ops in order over named tensors. */
export interface Plan {
  readonly ops: readonly Op[];
  readonly tensors: readonly Tensor[];
  readonly weights: readonly Weight[];
  readonly caches: readonly Cache[];
  /** Final hidden state after the last norm; undefined when the plan ends in tokens. */
  readonly hidden: Tensor | undefined;
  /** `[tokens, labels]` beside it, of models that rank texts. */
  readonly scores: Tensor | undefined;
  /** `[outputs, vocabSize]`; undefined when the plan ends in the hidden state. */
  readonly logits: Tensor | undefined;
  readonly vocabSize: number;
  /** Products whose inputs stay readable after a step; none unless the plan is made for it. */
  readonly products: readonly Product[];
}

/** The output matrix, also where it is the embedding's. */
const headName = "output.weight";

/** Experts per token, of a `route` output. */
const slotsOf = (routing: Tensor) => routing.width / 2;

export class PlanBuilder extends WeightTable {
  readonly #outputs: PlanOutputs;
  readonly #ops: Op[] = [];
  readonly #tensors: NumberedTensor[] = [];
  readonly #caches: Cache[] = [];
  readonly #adapters: AdapterTable;
  readonly #adapterOps: AdapterOps;

  constructor(
    source: WeightSource,
    outputs: PlanOutputs = "tokens",
    adapters: readonly Adapter[] = [],
  ) {
    super(source);
    this.#outputs = outputs;
    this.#adapters = new AdapterTable(adapters, (name) => this.shapeOf(name));
    this.#adapterOps = new AdapterOps(this.#adapters, {
      tensor: (rows, width) => this.#tensor(rows, width),
      factorParts: (factor, starts, rows) => this.factorParts(factor, starts, rows),
      table: (name, table, rows, cols) => this.constantMatrices(name, table, rows, cols)[0]!,
      reader: (weights) => this.weightReader(weights),
    });
  }

  #tensor(rows: Rows, width: number): Tensor {
    const tensor: Tensor = { id: this.#tensors.length, rows, width };
    this.#tensors.push(tensor);
    return tensor;
  }

  /** Whether the plan goes no further than the hidden state. */
  get endsInHidden(): boolean {
    return this.#outputs !== "tokens";
  }

  cache(numKvHeads: number, headDim: number, valueDim: number): Cache {
    const cache: Cache = { id: this.#caches.length, numKvHeads, headDim, valueDim };
    this.#caches.push(cache);
    return cache;
  }

  /** `[tokens, hiddenSize]` */
  embed(weight: Weight, scale = 1, row: EmbedRow = "token"): Tensor {
    const output = this.#tensor("tokens", weight.cols);
    this.#ops.push({ kind: "embed", weight, output, scale, row });
    this.#ops.push(...this.#adapterOps.addedToTable({ weight, output, scale, row }));
    return output;
  }

  /** `[outputs, width]` */
  gatherRows(input: Tensor): Tensor {
    assert(input.rows === "tokens", "gatherRows takes token rows");
    const output = this.#tensor("outputs", input.width);
    this.#ops.push({ kind: "gatherRows", input, output });
    return output;
  }

  norm(
    input: Tensor,
    norm: NormKind,
    weight: Weight | undefined,
    epsilon: number,
    { bias, groupWidth = input.width }: { bias?: Weight | undefined; groupWidth?: number } = {},
  ): Tensor {
    const output = this.#tensor(input.rows, input.width);
    const rowNorm = { norm, weight, bias, epsilon };
    this.#ops.push({ kind: "norm", input, output, rowNorm, groupWidth });
    return output;
  }

  /** Changes `output` in place. */
  unary(output: Tensor, name: UnaryFunction, parameter = 0): void {
    this.#ops.push({ kind: "unary", output, function: name, parameter });
  }

  /** residual += scale * input */
  add(input: Tensor, residual: Tensor, scale = 1): void {
    assert(input.width === residual.width, "add takes equal widths");
    this.#ops.push({ kind: "add", input, output: residual, scale });
  }

  /** `[rows, up width]`; `gate` may have one value per row. */
  glu(gate: Tensor, up: Tensor, activation: Gate): Tensor {
    const output = this.#tensor(up.rows, up.width);
    this.#ops.push({ kind: "glu", gate, up, output, activation });
    return output;
  }

  /** Changes `output` in place; see the op. */
  positionScale(output: Tensor, spec: { interval: number; offset: number; factor: number }): void {
    this.#ops.push({ kind: "positionScale", output, ...spec });
  }

  /**
   * `[rows, count * sum of widths]`: for each i of `count`, the parts one after another, each
   * `width` values of its input from start + i * stride on. Stride 0 repeats one for all.
   */
  concatHeads(
    count: number,
    parts: readonly { input: Tensor; width: number; start: number; stride: number }[],
  ): Tensor {
    const outputStride = parts.reduce((sum, { width }) => sum + width, 0);
    const output = this.#tensor(parts[0]!.input.rows, count * outputStride);
    let outputStart = 0;
    for (const { input, width, start, stride } of parts) {
      const from = { inputStart: start, inputStride: stride };
      const to = { outputStart, outputStride };
      this.#ops.push({ kind: "copyColumns", input, output, count, width, ...from, ...to });
      outputStart += width;
    }
    return output;
  }

  /** `[rows, heads * weight rows]` from `[rows, heads * weight cols]`; `target` as in `linear`. */
  headLinear(input: Tensor, weights: ExpertWeights, target?: string): Tensor {
    const { ops, ...read } = this.#adapterOps.lengthenedInput(input, weights, target);
    this.#ops.push(...ops);
    const slots = { count: weights.length, routing: undefined };
    return this.#slotLinears({ ...read, slots }, [{ weights, bias: undefined, target }])[0]!;
  }

  /** `[rows, slots * weight rows]` each: a matrix of each stack for every slot. */
  #slotLinears(
    product: Omit<AdaptedProduct, "outputs"> & Required<Pick<AdaptedProduct, "slots">>,
    stacks: readonly ExpertStack[],
  ): Tensor[] {
    const { input, slots } = product;
    const { count, routing } = slots;
    const outputs = stacks.map((stack) => {
      return { ...stack, output: this.#tensor(input.rows, count * stack.weights[0]!.rows) };
    });
    for (const { weights, bias, output } of outputs) {
      const operands = { input, routing, weights, bias, output };
      this.#ops.push({ kind: "slotLinear", ...operands, epilogue: "store" });
    }
    this.#ops.push(...this.#adapterOps.addedToProduct({ ...product, outputs }));
    return outputs.map(({ output }) => output);
  }

  /** New tensors `[rows, weight.rows]` from one input, in the order of `matrices`. */
  linears(
    input: Tensor,
    matrices: readonly { weight: Weight; bias?: Weight | undefined }[],
  ): Tensor[] {
    const outputs = matrices.map(({ weight, bias }): LinearOutput => {
      return { weight, bias, output: this.#tensor(input.rows, weight.rows) };
    });
    this.#linear(input, "store", outputs);
    return outputs.map((entry) => entry.output);
  }

  /** The product, then what adapters add to it; `target` is their name for a lone weight. */
  #linear(
    input: Tensor,
    epilogue: Epilogue,
    outputs: readonly LinearOutput[],
    target?: string,
  ): void {
    const op = { input, inputNorm: undefined, outputs };
    this.#ops.push({ kind: "linear", epilogue, ...op });
    const adapted = outputs.map(({ weight, ...rest }) => ({ weights: [weight], ...rest, target }));
    this.#ops.push(...this.#adapterOps.addedToProduct({ input, outputs: adapted }));
  }

  linear(input: Tensor, weight: Weight, bias?: Weight): Tensor {
    return this.linears(input, [{ weight, bias }])[0]!;
  }

  /** residual += input · weightᵀ + bias */
  linearAccumulate(input: Tensor, weight: Weight, residual: Tensor, bias?: Weight): void {
    if (this.#adapters.hasLengths(weight)) this.add(this.linear(input, weight, bias), residual);
    else this.#linear(input, "accumulate", [{ weight, bias, output: residual }]);
  }

  linearGlu(
    input: Tensor,
    gate: Weight,
    up: Weight,
    activation: Gate,
    biases: { gate?: Weight | undefined; up?: Weight | undefined } = {},
  ): Tensor {
    if ([gate, up].some((weight) => this.#adapters.has([weight]))) {
      const matrices = [
        { weight: gate, bias: biases.gate },
        { weight: up, bias: biases.up },
      ];
      const [g, u] = this.linears(input, matrices) as [Tensor, Tensor];
      return this.glu(g, u, activation);
    }
    const output = this.#tensor(input.rows, gate.rows);
    const weights = { gate, gateBias: biases.gate, up, upBias: biases.up };
    const op = { input, inputNorm: undefined, ...weights, output, activation };
    this.#ops.push({ kind: "linearGlu", ...op });
    return output;
  }

  /** A token's experts and their weights, from the router's logits `[rows, numExperts]`. */
  route(logits: Tensor, routing: Routing): Tensor {
    const output = this.#tensor(logits.rows, 2 * routing.numExpertsPerToken);
    this.#ops.push({ kind: "route", logits, output, routing });
    return output;
  }

  /** The input once per slot, times the slot's weight: `[rows, slots * width]`. */
  scaleSlots(input: Tensor, routing: Tensor): Tensor {
    const output = this.#tensor(input.rows, slotsOf(routing) * input.width);
    this.#ops.push({ kind: "scaleSlots", input, routing, output });
    return output;
  }

  /** `[rows, slots * gate rows]`; adapters know the stacks under their names or the targets. */
  expertGlu(
    input: Tensor,
    routing: Tensor,
    { gate, up }: { gate: ExpertStack; up: ExpertStack },
    activation: Gate,
  ): Tensor {
    if ([gate, up].some(({ weights, target }) => this.#adapters.has(weights, target))) {
      const slots = { count: slotsOf(routing), routing };
      const [g, u] = this.#slotLinears({ input, slots }, [gate, up]) as [Tensor, Tensor];
      return this.glu(g, u, activation);
    }
    const output = this.#tensor(input.rows, slotsOf(routing) * gate.weights[0]!.rows);
    const ofGate = { gate: gate.weights, gateBias: gate.bias };
    const weights = { ...ofGate, up: up.weights, upBias: up.bias };
    this.#ops.push({ kind: "expertGlu", input, routing, ...weights, output, activation });
    return output;
  }

  /** A new tensor `[rows, weight rows]`, or added to `residual`. */
  expertLinear(
    input: Tensor,
    routing: Tensor,
    stack: ExpertStack,
    { residual, isWeighted = true }: { residual?: Tensor; isWeighted?: boolean } = {},
  ): Tensor {
    const { weights, bias, target } = stack;
    const output = residual ?? this.#tensor(input.rows, weights[0]!.rows);
    const epilogue: Epilogue = residual === undefined ? "store" : "accumulate";
    const how = { routing, output, epilogue, isWeighted };
    if (this.#adapters.has(weights, target)) {
      const slots = { count: slotsOf(routing), routing };
      const answers = this.#slotLinears({ input, slots }, [stack])[0]!;
      this.#ops.push({ kind: "sumSlots", input: answers, ...how });
    } else this.#ops.push({ kind: "expertLinear", input, weights, bias, ...how });
    return output;
  }

  /** `[tokens, 2 * frequencies]` */
  rotations(frequencies: Weight, magnitude: number): Tensor {
    const output = this.#tensor("tokens", 2 * frequencies.cols);
    this.#ops.push({ kind: "rotations", frequencies, output, magnitude });
    return output;
  }

  qkvPrep(
    qkv: { q: Tensor; k: Tensor; v: Tensor },
    spec: { cache: Cache; numHeads: number; pairing: RopePairing; rotations: Tensor | undefined },
  ): void {
    this.#ops.push({ kind: "qkvPrep", ...qkv, ...spec });
  }

  /** `[tokens, numHeads * valueDim]` */
  attentionPaged(
    q: Tensor,
    spec: {
      cache: Cache;
      numHeads: number;
      scale: number;
      causal?: boolean;
      windowLen?: number;
      chunkLen?: number;
      softcap?: number;
      sinks?: Weight | undefined;
    },
  ): Tensor {
    const { cache, numHeads, scale, causal = true, windowLen = 0, chunkLen = 0 } = spec;
    const { softcap = 0, sinks } = spec;
    const output = this.#tensor("tokens", numHeads * cache.valueDim);
    const op = { cache, numHeads, scale, causal, windowLen, chunkLen, softcap, sinks };
    this.#ops.push({ kind: "attentionPaged", q, output, ...op });
    return output;
  }

  /**
   * Ends the plan: `lmHead` `[vocabSize, hiddenSize]` over the normed hidden state, then, where
   * given, logits * scale, softcap * tanh(logits / softcap).
   */
  finish(
    hidden: Tensor,
    lmHead: Weight,
    {
      bias,
      scale = 1,
      softcap = 0,
    }: { bias?: Weight | undefined; scale?: number; softcap?: number } = {},
  ): Plan {
    assert(this.#outputs === "tokens", "the plan has a use for logits");
    const logits = this.#tensor(hidden.rows, lmHead.rows);
    // Adapters tell the two uses of a shared matrix apart.
    const isTied = this.#ops.some((op) => op.kind === "embed" && op.weight === lmHead);
    const target = isTied ? headName : undefined;
    this.#linear(hidden, "store", [{ weight: lmHead, bias, output: logits }], target);
    if (scale !== 1) this.unary(logits, "scale", scale);
    if (softcap !== 0) this.unary(logits, "softcap", softcap);
    this.#ops.push({ kind: "sample", logits });
    return this.#plan(lmHead.rows, { logits });
  }

  /** Ends the plan in the hidden state itself, and in `scores` of it where there are any. */
  finishHidden(hidden: Tensor, vocabSize: number, scores?: Tensor): Plan {
    return this.#plan(vocabSize, { hidden, scores });
  }

  #plan(
    vocabSize: number,
    { hidden, scores, logits }: Partial<Pick<Plan, "hidden" | "scores" | "logits">>,
  ): Plan {
    const isBeyond = (tensor: string) => hidden !== undefined && tensor === headName;
    this.#adapters.requireAllUsed(isBeyond);
    const results = [hidden, scores].filter((tensor) => tensor !== undefined);
    const { ops, products } = this.#program(results);
    const tensors = numberTensors(this.#tensors, ops, results);
    return {
      ops,
      tensors,
      weights: this.weights,
      caches: this.#caches,
      hidden,
      scores,
      logits,
      vocabSize,
      products,
    };
  }

  #program(results: readonly Tensor[]): { ops: readonly Op[]; products: readonly Product[] } {
    if (this.#outputs === "inputs") {
      return keepInputs(this.#ops, ({ rows, width }) => this.#tensor(rows, width));
    }
    return { ops: fuseNorms(this.#ops, results), products: [] };
  }
}
