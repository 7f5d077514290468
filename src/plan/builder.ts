// Collects a model's ops, tensors, weights and caches in the order the model code states them.
// Knows nothing of memory: `arena.ts` places tensors, `binary.ts` writes the executor's form.
import { assert, TinferError } from "../core/errors.ts";
import { fuseNorms } from "./fuse-norms.ts";
import {
  type Activation,
  type Cache,
  type Epilogue,
  type ExpertWeights,
  type LinearOutput,
  type NormKind,
  type Op,
  operandsOf,
  type RopePairing,
  type Routing,
  type Rows,
  type Tensor,
  type Weight,
} from "./ops.ts";

/** A matrix of the model file as the plan needs it. */
export interface WeightSource {
  /** Shape and type of a tensor of the file, or undefined when it has none of that name. */
  find(name: string): { shape: readonly number[]; typeId: number } | undefined;
}

/** What a plan ends in: sampled tokens, or the hidden state alone (embeddings). */
export type PlanOutputs = "tokens" | "hidden";

/** A model's program: ops in order over named tensors. */
export interface Plan {
  readonly ops: readonly Op[];
  readonly tensors: readonly Tensor[];
  readonly weights: readonly Weight[];
  readonly caches: readonly Cache[];
  /** Final hidden state after the last norm; undefined when the plan ends in tokens. */
  readonly hidden: Tensor | undefined;
  /** `[outputs, vocabSize]`; undefined when the plan ends in the hidden state. */
  readonly logits: Tensor | undefined;
  readonly vocabSize: number;
}

const f32TypeId = 0;

/** Experts per token, of a `route` output. */
const slotsOf = (routing: Tensor) => routing.width / 2;

export class PlanBuilder {
  readonly #source: WeightSource;
  readonly #outputs: PlanOutputs;
  readonly #ops: Op[] = [];
  readonly #tensors: { -readonly [K in keyof Tensor]: Tensor[K] }[] = [];
  readonly #weights: Weight[] = [];
  readonly #caches: Cache[] = [];
  readonly #weightsByName = new Map<string, Weight>();

  constructor(source: WeightSource, outputs: PlanOutputs = "tokens") {
    this.#source = source;
    this.#outputs = outputs;
  }

  #tensor(rows: Rows, width: number): Tensor {
    const tensor: Tensor = { id: this.#tensors.length, rows, width };
    this.#tensors.push(tensor);
    return tensor;
  }

  hasWeight(name: string): boolean {
    return this.#source.find(name) !== undefined;
  }

  /** The weight `name`, which must be `[rows, cols]`; throws when it is missing or differs. */
  weight(name: string, rows: number, cols: number): Weight {
    const weight = this.optionalWeight(name, rows, cols);
    if (weight !== undefined) return weight;
    throw missing(name);
  }

  optionalWeight(name: string, rows: number, cols: number): Weight | undefined {
    const known = this.#weightsByName.get(name);
    if (known !== undefined) return known;
    const found = this.#source.find(name);
    if (found === undefined) return undefined;
    const shape = found.shape.length === 1 ? [1, found.shape[0]!] : found.shape;
    if (shape.length !== 2 || shape[0] !== rows || shape[1] !== cols) {
      throw wrongShape(name, found.shape, [rows, cols]);
    }
    const weight: Weight = { id: this.#weights.length, name, rows, cols, typeId: found.typeId };
    this.#weights.push(weight);
    this.#weightsByName.set(name, weight);
    return weight;
  }

  /**
   * One `[rows, cols]` matrix per expert: slices of the tensor `stacked` `[count, rows, cols]`,
   * or, in files without it, a tensor each.
   */
  experts(
    stacked: string,
    single: (expert: number) => string,
    [count, rows, cols]: readonly [number, number, number],
  ): ExpertWeights {
    const found = this.#source.find(stacked);
    const numbers = Array.from({ length: count }, (_, index) => index);
    if (found === undefined) {
      if (!this.hasWeight(single(0))) throw missing(stacked);
      return numbers.map((index) => this.weight(single(index), rows, cols));
    }
    const { shape, typeId } = found;
    const wanted = [count, rows, cols];
    if (shape.length !== 3 || wanted.some((size, i) => shape[i] !== size)) {
      throw wrongShape(stacked, shape, wanted);
    }
    return numbers.map((index): Weight => {
      const id = this.#weights.length;
      const weight = { id, name: stacked, rows, cols, typeId, slice: { index, count } };
      this.#weights.push(weight);
      return weight;
    });
  }

  /** A `[1, width]` weight that ops read as plain floats; it must be stored as F32. */
  vector(name: string, width: number): Weight {
    return requireF32(this.weight(name, 1, width));
  }

  optionalVector(name: string, width: number): Weight | undefined {
    const weight = this.optionalWeight(name, 1, width);
    return weight === undefined ? undefined : requireF32(weight);
  }

  /** A table made by the model code, `[1, values.length]`. */
  constant(name: string, values: Float32Array): Weight {
    const id = this.#weights.length;
    const cols = values.length;
    const weight: Weight = { id, name, rows: 1, cols, typeId: f32TypeId, constant: values };
    this.#weights.push(weight);
    return weight;
  }

  cache(numKvHeads: number, headDim: number, valueDim: number): Cache {
    const cache: Cache = { id: this.#caches.length, numKvHeads, headDim, valueDim };
    this.#caches.push(cache);
    return cache;
  }

  /** `[tokens, hiddenSize]` */
  embed(weight: Weight, scale = 1): Tensor {
    const output = this.#tensor("tokens", weight.cols);
    this.#ops.push({ kind: "embed", weight, output, scale });
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
    bias?: Weight,
  ): Tensor {
    const output = this.#tensor(input.rows, input.width);
    this.#ops.push({ kind: "norm", input, output, rowNorm: { norm, weight, bias, epsilon } });
    return output;
  }

  /** New tensors `[rows, weight.rows]` from one input, in the order of `matrices`. */
  linears(
    input: Tensor,
    matrices: readonly { weight: Weight; bias?: Weight | undefined }[],
  ): Tensor[] {
    const outputs = matrices.map(({ weight, bias }): LinearOutput => {
      return { weight, bias, output: this.#tensor(input.rows, weight.rows) };
    });
    const op = { input, inputNorm: undefined, outputs };
    this.#ops.push({ kind: "linear", epilogue: "store", ...op });
    return outputs.map((entry) => entry.output);
  }

  linear(input: Tensor, weight: Weight, bias?: Weight): Tensor {
    return this.linears(input, [{ weight, bias }])[0]!;
  }

  /** residual += input · weightᵀ + bias */
  linearAccumulate(input: Tensor, weight: Weight, residual: Tensor, bias?: Weight): void {
    const outputs = [{ weight, bias, output: residual }];
    const op = { input, inputNorm: undefined, outputs };
    this.#ops.push({ kind: "linear", epilogue: "accumulate", ...op });
  }

  linearGlu(
    input: Tensor,
    gate: Weight,
    up: Weight,
    activation: Activation,
    biases: { gate?: Weight | undefined; up?: Weight | undefined } = {},
  ): Tensor {
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

  /** `[rows, slots * gate rows]` */
  expertGlu(
    input: Tensor,
    routing: Tensor,
    { gate, up }: { gate: ExpertWeights; up: ExpertWeights },
    activation: Activation,
    biases: { gate?: Weight | undefined; up?: Weight | undefined } = {},
  ): Tensor {
    const output = this.#tensor(input.rows, slotsOf(routing) * gate[0]!.rows);
    const [gateBias, upBias] = [biases.gate, biases.up];
    const weights = { gate, gateBias, up, upBias };
    this.#ops.push({ kind: "expertGlu", input, routing, ...weights, output, activation });
    return output;
  }

  /** A new tensor `[rows, weight rows]`, or added to `residual`. */
  expertLinear(
    input: Tensor,
    routing: Tensor,
    weights: ExpertWeights,
    spec: { residual?: Tensor; bias?: Weight | undefined; isWeighted?: boolean } = {},
  ): Tensor {
    const { residual, bias, isWeighted = true } = spec;
    const output = residual ?? this.#tensor(input.rows, weights[0]!.rows);
    const epilogue: Epilogue = residual === undefined ? "store" : "accumulate";
    const how = { bias, output, epilogue, isWeighted };
    this.#ops.push({ kind: "expertLinear", input, routing, weights, ...how });
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
      windowLen?: number;
      softcap?: number;
      sinks?: Weight | undefined;
    },
  ): Tensor {
    const { cache, numHeads, scale, windowLen = 0, softcap = 0, sinks } = spec;
    const output = this.#tensor("tokens", numHeads * cache.valueDim);
    const op = { cache, numHeads, scale, windowLen, softcap, sinks };
    this.#ops.push({ kind: "attentionPaged", q, output, ...op });
    return output;
  }

  /** Ends the plan: `lmHead` `[vocabSize, hiddenSize]` over the normed hidden state. */
  finish(hidden: Tensor, lmHead: Weight, bias?: Weight): Plan {
    let logits: Tensor | undefined;
    if (this.#outputs === "tokens") {
      logits = this.linear(hidden, lmHead, bias);
      this.#ops.push({ kind: "sample", logits });
    }
    const result = logits === undefined ? hidden : undefined;
    const ops = fuseNorms(this.#ops, result === undefined ? [] : [result]);
    return {
      ops,
      tensors: this.#numberTensors(ops, result),
      weights: this.#weights,
      caches: this.#caches,
      hidden: result,
      logits,
      vocabSize: lmHead.rows,
    };
  }

  /** The tensors that are still there, with ids in that order. */
  #numberTensors(ops: readonly Op[], result: Tensor | undefined): Tensor[] {
    const used = new Set<Tensor | undefined>([result]);
    for (const op of ops) {
      const { reads, writes } = operandsOf(op);
      for (const tensor of [...reads, ...writes]) used.add(tensor);
    }
    const kept = this.#tensors.filter((tensor) => used.has(tensor));
    for (const tensor of this.#tensors) tensor.id = kept.indexOf(tensor);
    return kept;
  }
}

function missing(name: string): TinferError {
  return new TinferError("invalidFile", `tensor '${name}' is missing`, {
    hint: "the file is incomplete or of another architecture than it says; convert it again",
  });
}

function wrongShape(name: string, found: readonly number[], wanted: readonly number[]) {
  const message = `tensor '${name}' is [${found}], the metadata asks for [${wanted.join(", ")}]`;
  return new TinferError("invalidFile", message, {
    hint: "metadata and tensors of this file do not belong together; convert it again",
  });
}

function requireF32(weight: Weight): Weight {
  if (weight.typeId === f32TypeId) return weight;
  throw new TinferError("unsupported", `tensor '${weight.name}' is a vector that is not F32`, {
    hint: "convert the model with a current converter, which keeps norms and biases in F32",
  });
}
