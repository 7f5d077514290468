// The op set: what each op reads, writes and computes, and the field order of its binary record.
// kernels/plan.zig holds the same records for the executor; a new op is added in both.

/** Row count of an activation: T token rows or R output rows (those whose logits are wanted). */
export type Rows = "tokens" | "outputs";

/** An f32 activation `[rows, width]` in the arena. */
export interface Tensor {
  readonly id: number;
  readonly rows: Rows;
  readonly width: number;
}

/** F32 values that the model code makes; several weights may be parts of one table. */
export interface Table {
  /** Values that it has. */
  readonly length: number;
  /** Makes them; a plan only describes tables, so that it costs nothing. */
  readonly make: () => Float32Array;
}

/** A weight matrix `[rows, cols]` of a file, or a constant table made by the model code. */
export interface Weight {
  readonly id: number;
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  /** Type number (weights/quant-types.ts). */
  readonly typeId: number;
  /** The matrix is this many times what is stored; 1 but for types with a scale per tensor. */
  readonly gain: number;
  /** Where this is a part of the tensor `name`, which has `count` equal pieces (rows, or values of
   * a vector): the piece that it begins at. */
  readonly slice?: { readonly first: number; readonly count: number };
  /** Of 8-bit floats: what their codes are multiplied by; 1 where absent. */
  readonly scales?: WeightScales;
  /** Where it begins in a table of the model code; undefined for weights of the file. */
  readonly constant?: { readonly table: Table; readonly firstValue: number };
}

export interface WeightScales {
  /** F32 `[row blocks, column blocks]`, of the whole tensor that the weight is a part of. */
  readonly weight: Weight;
  /** Rows and columns of a block. */
  readonly blockRows: number;
  readonly blockCols: number;
  /** Row of the tensor that is the weight's first. */
  readonly firstRow: number;
}

export const kvTypes = ["f32", "f16", "bf16", "q8_0", "q4_0"] as const;
export type KvType = (typeof kvTypes)[number];

/** One layer's KV cache. */
export interface Cache {
  readonly id: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
}

export const activations = [
  ...(["silu", "gelu_tanh", "gelu_erf", "relu", "relu_squared", "sigmoid"] as const),
] as const;
export type Activation = (typeof activations)[number];
/**
 * How a gate g meets its u: activation(g) * u, or, as gpt-oss has it, g' * sigmoid(1.702 g') *
 * (u' + 1) with g' = min(g, 7) and u' = u within ±7.
 */
export const gates = [...activations, "swiglu_oai"] as const;
export type Gate = (typeof gates)[number];
/** What `unary` computes of x: an activation, parameter * tanh(x / parameter), parameter * x. */
export const unaryFunctions = [...activations, "softcap", "scale"] as const;
export type UnaryFunction = (typeof unaryFunctions)[number];
/** Which row of a table a token takes: that of its id, of its position, or always the first. */
export const embedRows = ["token", "position", "first"] as const;
export type EmbedRow = (typeof embedRows)[number];
export const normKinds = ["rms", "layer"] as const;
export type NormKind = (typeof normKinds)[number];
export const ropePairings = ["none", "interleaved", "half_split"] as const;
export type RopePairing = (typeof ropePairings)[number];
export const epilogues = ["store", "accumulate"] as const;
export type Epilogue = (typeof epilogues)[number];

/** (x - mean) * scale * weight + bias over one row; RMS norms take no mean off. */
export interface RowNorm {
  readonly norm: NormKind;
  readonly weight: Weight | undefined;
  readonly bias: Weight | undefined;
  readonly epsilon: number;
}

export const scorings = ["softmax", "sigmoid", "softmax_selected"] as const;
export type Scoring = (typeof scorings)[number];
export const groupScores = ["max", "top2_sum"] as const;
export type GroupScore = (typeof groupScores)[number];

/** One matrix per expert or head, all of one shape, with ids that follow one another. */
export type ExpertWeights = readonly Weight[];

/** How a router's logits `[numExperts]` choose a token's experts and their weights. */
export interface Routing {
  /**
   * A token's probabilities: softmax or sigmoid of its logits; `softmax_selected` is the softmax
   * of the chosen experts' logits alone.
   */
  readonly scoring: Scoring;
  readonly numExpertsPerToken: number;
  /** `[1, numExperts]`, added to the probabilities for the choice but not in the weights. */
  readonly selectionBias: Weight | undefined;
  /** Consecutive experts form groups; only the best groups' experts may be chosen. */
  readonly numGroups: number;
  readonly numGroupsUsed: number;
  /** A group's score: its best expert's, or the sum of its two best. */
  readonly groupScore: GroupScore;
  /** Whether a token's weights are divided by their sum. */
  readonly normalise: boolean;
  /** Factor on the weights. */
  readonly scale: number;
}

/** Products in one `linear`. */
export const maxLinearOutputs = 8;

export interface LinearOutput {
  readonly weight: Weight;
  readonly bias: Weight | undefined;
  readonly output: Tensor;
}

export type Op =
  /** output[t] = scale * weight[row of t] */
  | { readonly kind: "embed"; weight: Weight; output: Tensor; scale: number; row: EmbedRow }
  /** output[r] = input[outputRows[r]] */
  | { readonly kind: "gatherRows"; input: Tensor; output: Tensor }
  /**
   * output = normalised(input), each `groupWidth` values of a row by themselves (a head, or the
   * whole row). Weight and bias are as wide as a group, the same for all, or as a row.
   */
  | { readonly kind: "norm"; input: Tensor; output: Tensor; rowNorm: RowNorm; groupWidth: number }
  /** output = function(output), value by value */
  | { readonly kind: "unary"; output: Tensor; function: UnaryFunction; parameter: number }
  /** output += scale * input */
  | { readonly kind: "add"; input: Tensor; output: Tensor; scale: number }
  /** output = gate and up combined value by value; a gate of width 1 serves its whole row */
  | { readonly kind: "glu"; gate: Tensor; up: Tensor; output: Tensor; activation: Gate }
  /** output[t] *= 1 + factor * ln(1 + floor((positions[t] + offset) / interval)) */
  | {
      readonly kind: "positionScale";
      output: Tensor;
      interval: number;
      offset: number;
      factor: number;
    }
  /** output[r] *= gain * the scale of `adapter` in the row's step data; 0 gives zeros */
  | { readonly kind: "adapterScale"; output: Tensor; adapter: number; gain: number }
  /**
   * output[t, s] = (c - 1) * (input[t, s] - bias[m]) + c * output[t, s], m as in `slotLinear`, or
   * one for whole rows: what rows of the length that the adapter wants add to the product `input`,
   * `output` being its update. c = wanted length / √(n₀ + σ n₁ + σ² n₂), σ = gain * scale of
   * `adapter`; a scale of 0 gives zeros. `lengths` is F32 `[4 * matrices, width]`: of each matrix
   * the wanted lengths of its rows, n₀, n₁ and n₂. A row without length stays so.
   */
  | {
      readonly kind: "magnitude";
      input: Tensor;
      routing: Tensor | undefined;
      lengths: Weight;
      bias: Weight | undefined;
      output: Tensor;
      adapter: number;
      gain: number;
    }
  /** `width` values of each of `count` parts of a row: from input to output, other values stay */
  | {
      readonly kind: "copyColumns";
      input: Tensor;
      output: Tensor;
      count: number;
      width: number;
      /** Part i begins at start + i * stride. */
      inputStart: number;
      inputStride: number;
      outputStart: number;
      outputStride: number;
    }
  /**
   * output[t, s] (+)= x · weights[m]ᵀ + bias[m]: a matrix for every slot of a row, m = expert of
   * slot s, or, without a routing, a matrix for every head, m = s. x = input[t, s], or input[t]
   * where the input has no row per slot. Biases are `[matrices, width]`.
   */
  | {
      readonly kind: "slotLinear";
      input: Tensor;
      routing: Tensor | undefined;
      weights: ExpertWeights;
      bias: Weight | undefined;
      output: Tensor;
      epilogue: Epilogue;
    }
  /** outputs[i] (+)= input · weight[i]ᵀ + bias[i], the input normalised first by `inputNorm` */
  | {
      readonly kind: "linear";
      input: Tensor;
      inputNorm: RowNorm | undefined;
      epilogue: Epilogue;
      outputs: readonly LinearOutput[];
    }
  /** output = activation(input · gateᵀ + gateBias) * (input · upᵀ + upBias), input as in `linear` */
  | {
      readonly kind: "linearGlu";
      input: Tensor;
      inputNorm: RowNorm | undefined;
      gate: Weight;
      gateBias: Weight | undefined;
      up: Weight;
      upBias: Weight | undefined;
      output: Tensor;
      activation: Gate;
    }
  /**
   * output[t] = the numbers of the chosen experts, best first, ties by lower number; then their
   * weights. The choice is by logit, or by probability + bias where there is a selection bias or
   * groups are scored by a sum.
   */
  | { readonly kind: "route"; logits: Tensor; output: Tensor; routing: Routing }
  /** output[t, s] = input[t] * weight of slot s: for models that scale what experts read */
  | { readonly kind: "scaleSlots"; input: Tensor; routing: Tensor; output: Tensor }
  /** output[t] (+)= Σ over slots s in order: weight of s * input[t, s] */
  | {
      readonly kind: "sumSlots";
      input: Tensor;
      routing: Tensor;
      output: Tensor;
      epilogue: Epilogue;
      /** False: every slot weighs 1. */
      isWeighted: boolean;
    }
  /**
   * linearGlu of each token's experts: output[t, s] = activation(x · gate[e]ᵀ + gateBias[e]) *
   * (x · up[e]ᵀ + upBias[e]), e = expert of slot s, x = input[t], or input[t, s] where the
   * input has a row per slot. Biases are `[numExperts, width]`.
   */
  | {
      readonly kind: "expertGlu";
      input: Tensor;
      routing: Tensor;
      gate: ExpertWeights;
      gateBias: Weight | undefined;
      up: ExpertWeights;
      upBias: Weight | undefined;
      output: Tensor;
      activation: Gate;
    }
  /** output[t] (+)= Σ over slots s in order: weight of s * (input[t, s] · weights[e]ᵀ + bias[e]) */
  | {
      readonly kind: "expertLinear";
      input: Tensor;
      routing: Tensor;
      weights: ExpertWeights;
      bias: Weight | undefined;
      output: Tensor;
      epilogue: Epilogue;
      /** False: every slot weighs 1, since its input was scaled. */
      isWeighted: boolean;
    }
  /** output[t] = [cos(p f₀), …, sin(p f₀), …] * magnitude, p = positions[t] */
  | { readonly kind: "rotations"; frequencies: Weight; output: Tensor; magnitude: number }
  /** rotates q and k in place by `rotations`, then stores k and v in the cache */
  | {
      readonly kind: "qkvPrep";
      q: Tensor;
      k: Tensor;
      v: Tensor;
      rotations: Tensor | undefined;
      cache: Cache;
      numHeads: number;
      pairing: RopePairing;
    }
  /** output[t, h] = softmax(scale * q·k, of visible positions) · v over the sequence's cache */
  | {
      readonly kind: "attentionPaged";
      q: Tensor;
      output: Tensor;
      cache: Cache;
      numHeads: number;
      scale: number;
      /** False: all positions of the sequence are visible, later ones too. */
      causal: boolean;
      /** Number of last positions that are visible, own one included; 0 = all. */
      windowLen: number;
      /** Positions are visible from the last multiple of this on; 0 = all. */
      chunkLen: number;
      /** c in c * tanh(score / c); 0 = none. */
      softcap: number;
      /** One more logit per head `[1, numHeads]` in the softmax, without a value. */
      sinks: Weight | undefined;
    }
  /** chooses one token per output row */
  | { readonly kind: "sample"; logits: Tensor };

export type OpKind = Op["kind"];
export type OpOf<K extends OpKind> = Extract<Op, { kind: K }>;

export const opcodes: Readonly<Record<OpKind, number>> = {
  embed: 1,
  gatherRows: 2,
  norm: 3,
  linear: 4,
  linearGlu: 5,
  rotations: 6,
  qkvPrep: 7,
  attentionPaged: 8,
  sample: 9,
  route: 10,
  scaleSlots: 11,
  expertGlu: 12,
  expertLinear: 13,
  unary: 14,
  add: 15,
  glu: 16,
  positionScale: 17,
  copyColumns: 18,
  slotLinear: 19,
  adapterScale: 20,
  sumSlots: 21,
  magnitude: 22,
};

/** Copies all of the input, which is as wide as the output. */
export function copyRows(input: Tensor, output: Tensor): Op {
  const places = { inputStart: 0, inputStride: 0, outputStart: 0, outputStride: 0 };
  return { kind: "copyColumns", input, output, count: 1, width: input.width, ...places };
}

/** The tensors an op reads and writes, for liveness. In-place operands are in both lists. */
export function operandsOf(op: Op): { reads: Tensor[]; writes: Tensor[] } {
  switch (op.kind) {
    case "embed":
    case "rotations":
      return { reads: [], writes: [op.output] };
    case "gatherRows":
    case "norm":
    case "linearGlu":
    case "copyColumns":
      return { reads: [op.input], writes: [op.output] };
    case "linear": {
      const outputs = op.outputs.map((entry) => entry.output);
      const reads = op.epilogue === "accumulate" ? [op.input, ...outputs] : [op.input];
      return { reads, writes: outputs };
    }
    case "unary":
    case "positionScale":
    case "adapterScale":
      return { reads: [op.output], writes: [op.output] };
    case "add":
      return { reads: [op.input, op.output], writes: [op.output] };
    case "glu":
      return { reads: [op.gate, op.up], writes: [op.output] };
    case "route":
      return { reads: [op.logits], writes: [op.output] };
    case "scaleSlots":
    case "expertGlu":
      return { reads: [op.input, op.routing], writes: [op.output] };
    case "expertLinear":
    case "slotLinear":
    case "sumSlots": {
      const reads = [op.input, ...(op.routing ? [op.routing] : [])];
      if (op.epilogue === "accumulate") reads.push(op.output);
      return { reads, writes: [op.output] };
    }
    case "magnitude": {
      const reads = [op.input, op.output, ...(op.routing ? [op.routing] : [])];
      return { reads, writes: [op.output] };
    }
    case "qkvPrep": {
      const inPlace = [op.q, op.k];
      return {
        reads: [...inPlace, op.v, ...(op.rotations ? [op.rotations] : [])],
        writes: inPlace,
      };
    }
    case "attentionPaged":
      return { reads: [op.q], writes: [op.output] };
    case "sample":
      return { reads: [op.logits], writes: [] };
  }
}
