// The parts that decoder families are put together from: norms, projections, attention, MLPs. They
// take their weights by the tensor names of GGUF, and a tensor or bias that a file may lack is used
// where it is there. Order, residuals and what is special are in each family's own file.
import type { Plan, PlanBuilder } from "../plan/builder.ts";
import type { Activation, Cache, NormKind, RopePairing, Tensor, Weight } from "../plan/ops.ts";
import type { ModelConfig } from "./model-config.ts";

/** One layer's sizes. */
export interface Layer {
  readonly index: number;
  readonly isLast: boolean;
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  /** Values of a query or key head. */
  readonly headDim: number;
  /** Values of a value head. */
  readonly valueDim: number;
  readonly intermediateSize: number;
  /** Full name of a tensor of the layer, without `.weight` or `.bias`. */
  readonly name: (part: string) => string;
}

export function layersOf(config: ModelConfig): Layer[] {
  const { hiddenSize, headDim, valueDim } = config;
  return Array.from({ length: config.numLayers }, (_, index) => ({
    ...{ index, isLast: index === config.numLayers - 1, hiddenSize, headDim, valueDim },
    numHeads: config.numHeads[index]!,
    numKvHeads: config.numKvHeads[index]!,
    intermediateSize: config.intermediateSizes[index]!,
    name: (part) => `blk.${index}.${part}`,
  }));
}

/** `[vocabSize, hiddenSize]` */
export function tokenEmbedding(b: PlanBuilder, { vocabSize, hiddenSize }: ModelConfig): Weight {
  return b.weight("token_embd.weight", vocabSize, hiddenSize);
}

function norm(kind: NormKind) {
  return (b: PlanBuilder, input: Tensor, name: string, { normEpsilon }: ModelConfig): Tensor => {
    const bias = b.optionalVector(`${name}.bias`, input.width);
    return b.norm(input, kind, b.vector(`${name}.weight`, input.width), normEpsilon, { bias });
  };
}

/** Norms of whole rows, by the tensors `name`.weight and, where there is one, `name`.bias. */
export const rmsNorm = norm("rms");
export const layerNorm = norm("layer");

/** RMS norm of each head by itself, with weights `[headDim]` that all heads share. */
export function headRmsNorm(
  b: PlanBuilder,
  input: Tensor,
  name: string,
  { headDim, normEpsilon }: ModelConfig,
): Tensor {
  const weight = b.vector(`${name}.weight`, headDim);
  return b.norm(input, "rms", weight, normEpsilon, { groupWidth: headDim });
}

/** The product with `name`.weight `[width, input width]`, and the bias where there is one. */
export function project(b: PlanBuilder, input: Tensor, name: string, width: number): Tensor {
  const weight = b.weight(`${name}.weight`, width, input.width);
  return b.linear(input, weight, b.optionalVector(`${name}.bias`, width));
}

/** residual += the same product. */
export function addProjection(b: PlanBuilder, input: Tensor, name: string, residual: Tensor): void {
  const weight = b.weight(`${name}.weight`, residual.width, input.width);
  b.linearAccumulate(input, weight, residual, b.optionalVector(`${name}.bias`, residual.width));
}

/** `[tokens, heads * head dim]` of queries, keys and values. */
export interface Qkv {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/** Queries, keys and values, from a matrix each or from one that has the rows of all three. */
export function projectQkv(b: PlanBuilder, input: Tensor, layer: Layer): Qkv {
  const { numHeads, numKvHeads, headDim, valueDim } = layer;
  const widths = [numHeads * headDim, numKvHeads * headDim, numKvHeads * valueDim];
  const count = widths.reduce((sum, width) => sum + width, 0);
  const fused = layer.name("attn_qkv");
  let first = 0;
  const matrices = ["attn_q", "attn_k", "attn_v"].map((part, index) => {
    const width = widths[index]!;
    const own = `${layer.name(part)}.weight`;
    const weight = b.hasWeight(`${fused}.weight`)
      ? b.weightRows(`${fused}.weight`, [count, input.width], first, width)
      : b.weight(own, width, input.width);
    const bias =
      b.optionalVectorPart(`${fused}.bias`, count, first, width) ??
      b.optionalVector(`${layer.name(part)}.bias`, width);
    first += width;
    return { weight, bias };
  });
  const [q, k, v] = b.linears(input, matrices) as [Tensor, Tensor, Tensor];
  return { q, k, v };
}

/** How a layer attends; what is left out is as in the Transformer: all positions, 1 / √headDim. */
export interface AttentionSpec {
  /** Undefined: no rotary embedding. */
  readonly rotations: Tensor | undefined;
  readonly pairing: RopePairing;
  readonly scale?: number;
  readonly windowLen?: number;
  readonly chunkLen?: number;
  readonly softcap?: number;
  readonly sinks?: Weight | undefined;
  /** False: every token sees all of the step's tokens of its sequence, later ones too. */
  readonly causal?: boolean;
  /** Where several layers use one cache: those whose keys nobody reads after the layer. */
  readonly cache?: Cache;
}

/** Rotates, remembers and attends: `[tokens, numHeads * valueDim]`. Changes q and k in place. */
export function attend(b: PlanBuilder, qkv: Qkv, layer: Layer, spec: AttentionSpec): Tensor {
  const { numHeads, numKvHeads, headDim, valueDim } = layer;
  const { rotations, pairing, scale = 1 / Math.sqrt(headDim), ...visibility } = spec;
  const cache = spec.cache ?? b.cache(numKvHeads, headDim, valueDim);
  b.qkvPrep(qkv, { cache, numHeads, pairing: rotations ? pairing : "none", rotations });
  return b.attentionPaged(qkv.q, { ...visibility, cache, numHeads, scale });
}

/** Beyond the last layer's attention only the rows whose logits are wanted matter. */
export function wantedRows<Tensors extends readonly Tensor[]>(
  b: PlanBuilder,
  { isLast }: Layer,
  ...tensors: Tensors
): Tensors {
  return isLast ? (tensors.map((tensor) => b.gatherRows(tensor)) as unknown as Tensors) : tensors;
}

/** Names and width of a gated MLP beside the usual one, such as shared experts. */
export interface MlpPart {
  readonly suffix: string;
  readonly intermediateSize: number;
}

/**
 * activation(gate) * up `[rows, intermediateSize]`. Files without a gate tensor hold its rows
 * before those of up, in one tensor named ffn_up.
 */
export function gatedMlp(
  b: PlanBuilder,
  input: Tensor,
  layer: Layer,
  activation: Activation,
  { suffix, intermediateSize }: MlpPart = { suffix: "", intermediateSize: layer.intermediateSize },
): Tensor {
  const [gateName, upName] = [layer.name(`ffn_gate${suffix}`), layer.name(`ffn_up${suffix}`)];
  const rows = intermediateSize;
  if (!b.hasWeight(`${gateName}.weight`)) {
    const part = (first: number) =>
      b.weightRows(`${upName}.weight`, [2 * rows, input.width], first, rows);
    const biasPart = (first: number) =>
      b.optionalVectorPart(`${upName}.bias`, 2 * rows, first, rows);
    const biases = { gate: biasPart(0), up: biasPart(rows) };
    return b.linearGlu(input, part(0), part(rows), activation, biases);
  }
  const gate = b.weight(`${gateName}.weight`, rows, input.width);
  const up = b.weight(`${upName}.weight`, rows, input.width);
  return b.linearGlu(input, gate, up, activation, {
    gate: b.optionalVector(`${gateName}.bias`, rows),
    up: b.optionalVector(`${upName}.bias`, rows),
  });
}

/** activation(up) `[rows, intermediateSize]`: the MLP of the first Transformers. */
export function plainMlp(
  b: PlanBuilder,
  input: Tensor,
  layer: Layer,
  activation: Activation,
): Tensor {
  const up = project(b, input, layer.name("ffn_up"), layer.intermediateSize);
  b.unary(up, activation);
  return up;
}

/** Ends the plan in `hidden`, and in the scores of models that rank texts. */
export function finishHidden(b: PlanBuilder, hidden: Tensor, config: ModelConfig): Plan {
  return b.finishHidden(hidden, config.vocabSize, rankScores(b, hidden, config));
}

/**
 * `[tokens, labels]`: tanh of a projection where the file has one, then the scores. Of every token
 * although one of a text is asked for: the layers cost a hundred times as much.
 */
function rankScores(b: PlanBuilder, hidden: Tensor, config: ModelConfig): Tensor | undefined {
  if (config.pooling !== "rank" || !b.hasWeight("cls.output.weight")) return undefined;
  if (!b.hasWeight("cls.weight")) return project(b, hidden, "cls.output", config.numLabels);
  const dense = project(b, hidden, "cls", hidden.width);
  b.unary(dense, "softcap", 1);
  return project(b, dense, "cls.output", config.numLabels);
}

/**
 * Ends the plan in logits of `normed`. Models without an output matrix of their own tie it to the
 * embedding.
 */
export function finishTokens(
  b: PlanBuilder,
  normed: Tensor,
  config: ModelConfig,
  ends: { scale?: number | undefined; softcap?: number | undefined } = {},
): Plan {
  if (b.endsInHidden) return finishHidden(b, normed, config);
  const { vocabSize, hiddenSize } = config;
  const own = b.optionalWeight("output.weight", vocabSize, hiddenSize);
  const bias = own && b.optionalVector("output.bias", vocabSize);
  const { scale = 1, softcap = 0 } = ends;
  return b.finish(normed, own ?? tokenEmbedding(b, config), { bias, scale, softcap });
}
