// A model's hyperparameters in tinfer's own words. The keys of GGUF metadata are translated here
// and nowhere else; families read only this.
import { TinferError } from "../core/errors.ts";
import { getNumber, getString, getStrings, type Metadata } from "../weights/metadata.ts";
import { ConfigReader, limits } from "./config-reader.ts";
import { type ExpertConfig, readExpertConfig } from "./expert-config.ts";
import { type LatentConfig, readLatentConfig } from "./latent-config.ts";

/** How rotary frequencies are stretched for contexts beyond the trained one. */
export interface RopeScaling {
  readonly kind: "none" | "linear" | "yarn" | "longrope";
  readonly factor: number;
  /** Context length before stretching. */
  readonly originalContextLen: number;
  readonly attentionFactor: number | undefined;
  readonly extrapolationFactor: number | undefined;
  readonly betaFast: number;
  readonly betaSlow: number;
  /** What YaRN's attention temperature is taken back by, in the terms of `yarnTemperature`. */
  readonly logMultiplier: number;
}

/** The rope as the file states it, below the user's options. */
export interface OwnRope {
  readonly theta: number;
  /** Base in layers with a window, where the file has one of its own. */
  readonly windowTheta: number | undefined;
  readonly scaling: RopeScaling;
}

/** Factors and caps that some families put on what others leave as it is; absent = none. */
export interface Scales {
  readonly embedding: number | undefined;
  /** On what attention and MLP add to the residual stream. */
  readonly residual: number | undefined;
  /** On scores before the softmax, instead of 1 / √headDim. */
  readonly attention: number | undefined;
  readonly logits: number | undefined;
  /** c in c * tanh(x / c). */
  readonly attentionSoftcap: number | undefined;
  readonly logitSoftcap: number | undefined;
  /** How queries grow with the logarithm of their position. */
  readonly positionTemperature: number | undefined;
  /** Positions from one step of that to the next. */
  readonly temperatureLen: number | undefined;
}

/** How the tokens' hidden states become one vector; `rank`: a score instead. */
const poolingTypes = ["none", "mean", "cls", "last", "rank"] as const;
export type PoolingType = (typeof poolingTypes)[number];

export interface ModelConfig {
  readonly architecture: string;
  readonly name: string | undefined;
  readonly numLayers: number;
  /** Longest context the model was trained for, in tokens. */
  readonly contextLen: number;
  /** The same with the user's rope options; `contextLen` without any. */
  readonly scaledContextLen: number;
  readonly hiddenSize: number;
  /** MLP width of each layer. */
  readonly intermediateSizes: readonly number[];
  /** Query heads of each layer. */
  readonly numHeads: readonly number[];
  readonly numKvHeads: readonly number[];
  readonly headDim: number;
  readonly valueDim: number;
  readonly vocabSize: number;
  readonly normEpsilon: number;
  /** Rotated dimensions of each head. */
  readonly rotaryDim: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  readonly ownRope: OwnRope;
  /** False where the file says that the model has no rotations although its family does. */
  readonly hasRope: boolean;
  /** Whether rotary dimensions are shared out to axes of a picture (M-RoPE). */
  readonly hasRopeSections: boolean;
  /** Sliding window in tokens as the file states it; whether a family applies it is its own. */
  readonly windowLen: number | undefined;
  /** Which layers have the window: all but every n-th, or layer by layer. */
  readonly windowPattern: number | readonly boolean[] | undefined;
  readonly scales: Scales;
  readonly experts: ExpertConfig;
  /** Undefined: keys and values are kept as they are. */
  readonly latent: LatentConfig | undefined;
  /** Segments that tokens may belong to (BERT). */
  readonly numTokenTypes: number;
  /** As the file states it; undefined for models that were not made for embeddings. */
  readonly pooling: PoolingType | undefined;
  /** Scores of a model that ranks texts; the first one counts. */
  readonly numLabels: number;
}

/** `general.architecture`, or an error that says what the file is. */
export function architectureOf(metadata: Metadata): string {
  const architecture = getString(metadata, "general.architecture");
  if (architecture !== undefined) return architecture;
  throw new TinferError("invalidFile", "metadata key 'general.architecture' is missing", {
    hint: "the file does not say which model it holds; convert it with a current converter",
  });
}

export function readModelConfig(metadata: Metadata): ModelConfig {
  const architecture = architectureOf(metadata);
  const reader = new ConfigReader(metadata, architecture);
  const numBlocks = reader.requiredCount("block_count", limits.layers);
  // The last blocks may hold heads that predict further tokens: they are no layers.
  const numLayers = numBlocks - (reader.count("nextn_predict_layers", numBlocks - 1, 0) ?? 0);
  const hiddenSize = reader.requiredCount("embedding_length", limits.width);
  const contextLen = reader.requiredCount("context_length", limits.contextLen);
  const numHeads = reader.perLayer("attention.head_count", numLayers, limits.heads);
  if (numHeads === undefined) reader.requiredCount("attention.head_count", limits.heads);
  const mostHeads = Math.max(...numHeads!);
  if (mostHeads === 0) throw reader.invalid("attention.head_count", 0, "heads");
  const headDim =
    reader.count("attention.key_length", limits.width) ?? Math.floor(hiddenSize / mostHeads);
  const valueDim = reader.count("attention.value_length", limits.width) ?? headDim;
  const tokens = getStrings(metadata, "tokenizer.ggml.tokens");
  const ownRope = readRope(reader, contextLen);
  const config: ModelConfig = {
    architecture,
    name: getString(metadata, "general.name"),
    numLayers,
    contextLen,
    scaledContextLen: contextLen,
    hiddenSize,
    intermediateSizes:
      reader.perLayer("feed_forward_length", numLayers, limits.width) ??
      new Array<number>(numLayers).fill(0),
    numHeads: numHeads!,
    numKvHeads: reader.perLayer("attention.head_count_kv", numLayers, limits.heads) ?? numHeads!,
    headDim,
    valueDim,
    vocabSize: reader.count("vocab_size", limits.vocabSize) ?? tokens?.length ?? 0,
    normEpsilon:
      reader.float("attention.layer_norm_rms_epsilon") ??
      reader.float("attention.layer_norm_epsilon") ??
      1e-5,
    rotaryDim: reader.count("rope.dimension_count", limits.width, 0) ?? headDim,
    ropeTheta: ownRope.theta,
    ropeScaling: ownRope.scaling,
    ownRope,
    hasRopeSections: reader.hasNumbers("rope.dimension_sections"),
    hasRope: reader.flag("rope.scaling.finetuned") ?? true,
    windowLen: reader.count("attention.sliding_window", limits.contextLen, 0) || undefined,
    windowPattern: reader.flagsOrCount("attention.sliding_window_pattern", numLayers),
    scales: readScales(reader),
    experts: readExpertConfig(reader, numLayers),
    latent: readLatentConfig(reader, { headDim, valueDim }),
    numTokenTypes: getNumber(metadata, "tokenizer.ggml.token_type_count") ?? 0,
    pooling: readPooling(reader),
    numLabels: getStrings(metadata, `${architecture}.classifier.output_labels`)?.length || 1,
  };
  checkHeads(reader, config);
  return config;
}

/** Query heads come in whole groups per KV head; rotation stays within a head. */
function checkHeads(reader: ConfigReader, config: ModelConfig): void {
  config.numHeads.forEach((numHeads, layer) => {
    const numKvHeads = config.numKvHeads[layer]!;
    if (numHeads === 0 || (numKvHeads > 0 && numHeads % numKvHeads === 0)) return;
    throw reader.invalid("attention.head_count_kv", numKvHeads, `a divisor of ${numHeads}`);
  });
  const { headDim, rotaryDim } = config;
  if (headDim % 2 !== 0) throw reader.invalid("attention.key_length", headDim, "an even number");
  if (rotaryDim > headDim || rotaryDim % 2 !== 0) {
    throw reader.invalid("rope.dimension_count", rotaryDim, `an even number up to ${headDim}`);
  }
}

function readPooling(reader: ConfigReader): PoolingType | undefined {
  const type = reader.count("pooling_type", poolingTypes.length - 1, 0);
  return type === undefined ? undefined : poolingTypes[type];
}

function readRope(reader: ConfigReader, contextLen: number): OwnRope {
  return {
    theta: reader.float("rope.freq_base") ?? 10000,
    windowTheta: reader.float("rope.freq_base_swa"),
    scaling: readRopeScaling(reader, contextLen),
  };
}

function readRopeScaling(reader: ConfigReader, contextLen: number): RopeScaling {
  const kind = reader.text("rope.scaling.type") ?? "linear";
  if (kind !== "none" && kind !== "linear" && kind !== "yarn" && kind !== "longrope") {
    throw new TinferError("unsupported", `rope scaling '${kind}' is not known`, {
      hint: "known are none, linear, yarn and longrope",
    });
  }
  // Files before 2023-10 wrote the linear factor under `rope.scale_linear`.
  const factor = reader.float("rope.scaling.factor") ?? reader.float("rope.scale_linear") ?? 1;
  return {
    kind,
    factor: factor === 0 ? 1 : factor,
    originalContextLen:
      reader.count("rope.scaling.original_context_length", limits.contextLen) ?? contextLen,
    attentionFactor: reader.float("rope.scaling.attn_factor"),
    extrapolationFactor: reader.float("rope.scaling.ext_factor"),
    betaFast: reader.float("rope.scaling.yarn_beta_fast") ?? 32,
    betaSlow: reader.float("rope.scaling.yarn_beta_slow") ?? 1,
    logMultiplier: reader.float("rope.scaling.yarn_log_multiplier") ?? 0,
  };
}

/** Converters write 0 for "none". */
function readScales(reader: ConfigReader): Scales {
  const scale = (suffix: string) => reader.float(suffix) || undefined;
  return {
    embedding: scale("embedding_scale"),
    residual: scale("residual_scale"),
    attention: scale("attention.scale"),
    logits: scale("logit_scale"),
    attentionSoftcap: scale("attn_logit_softcapping"),
    logitSoftcap: scale("final_logit_softcapping"),
    positionTemperature: scale("attention.temperature_scale"),
    temperatureLen: reader.count("attention.temperature_length", limits.contextLen),
  };
}
