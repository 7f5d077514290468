// A model's hyperparameters in tinfer's own words. The keys of GGUF metadata are translated here
// and nowhere else; families read only this.
import { TinferError } from "../core/errors.ts";
import {
  getBoolean,
  getNumber,
  getNumbers,
  getString,
  getStrings,
  type Metadata,
} from "../weights/metadata.ts";

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
}

export interface ModelConfig {
  readonly architecture: string;
  readonly name: string | undefined;
  readonly numLayers: number;
  /** Longest context the model was trained for, in tokens. */
  readonly contextLen: number;
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
  /** Sliding window in tokens as the file states it; whether a family applies it is its own. */
  readonly windowLen: number | undefined;
  readonly numExperts: number;
  readonly numExpertsPerToken: number;
}

/** Limits that keep a hostile file from asking for absurd plans. */
const limits = {
  layers: 1024,
  width: 1 << 20,
  heads: 4096,
  contextLen: 1 << 28,
  /** As kernels/plan.zig has places for. */
  experts: 1024,
  vocabSize: 1 << 24,
} as const;

function invalid(key: string, value: unknown, wanted: string): TinferError {
  return new TinferError("invalidFile", `metadata key '${key}' is ${value}, wanted ${wanted}`, {
    hint: "the file is damaged or was written by a faulty converter; download or convert it again",
  });
}

class Reader {
  readonly #metadata: Metadata;
  readonly #architecture: string;

  constructor(metadata: Metadata, architecture: string) {
    this.#metadata = metadata;
    this.#architecture = architecture;
  }

  #key(suffix: string): string {
    return `${this.#architecture}.${suffix}`;
  }

  float(suffix: string): number | undefined {
    const value = getNumber(this.#metadata, this.#key(suffix));
    if (value !== undefined && !Number.isFinite(value)) {
      throw invalid(this.#key(suffix), value, "a finite number");
    }
    return value;
  }

  text(suffix: string): string | undefined {
    return getString(this.#metadata, this.#key(suffix));
  }

  flag(suffix: string): boolean | undefined {
    return getBoolean(this.#metadata, this.#key(suffix));
  }

  /** A whole number in [least, most], or undefined when absent. */
  count(suffix: string, most: number, least = 1): number | undefined {
    return this.#checkCount(suffix, this.float(suffix), most, least);
  }

  #checkCount(suffix: string, value: number | undefined, most: number, least: number) {
    if (value === undefined) return undefined;
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw invalid(this.#key(suffix), value, `a whole number from ${least} to ${most}`);
  }

  requiredCount(suffix: string, most: number): number {
    const value = this.count(suffix, most);
    if (value !== undefined) return value;
    throw new TinferError("invalidFile", `metadata key '${this.#key(suffix)}' is missing`, {
      hint: "the file holds no complete model; is it a vocabulary or an adapter?",
    });
  }

  /** One number for all layers, or one per layer. */
  perLayer(suffix: string, numLayers: number, most: number): number[] | undefined {
    const value = this.#metadata.get(this.#key(suffix));
    if (!ArrayBuffer.isView(value)) {
      const count = this.count(suffix, most, 0);
      return count === undefined ? undefined : new Array<number>(numLayers).fill(count);
    }
    const numbers = Array.from(getNumbers(this.#metadata, this.#key(suffix))!, Number);
    if (numbers.length < numLayers) {
      throw invalid(this.#key(suffix), `an array of ${numbers.length}`, `${numLayers} numbers`);
    }
    return numbers.slice(0, numLayers).map((n) => this.#checkCount(suffix, n, most, 0)!);
  }
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
  const reader = new Reader(metadata, architecture);
  const numLayers = reader.requiredCount("block_count", limits.layers);
  const hiddenSize = reader.requiredCount("embedding_length", limits.width);
  const contextLen = reader.requiredCount("context_length", limits.contextLen);
  const numHeads = reader.perLayer("attention.head_count", numLayers, limits.heads);
  if (numHeads === undefined) reader.requiredCount("attention.head_count", limits.heads);
  const mostHeads = Math.max(...numHeads!);
  if (mostHeads === 0) throw invalid(`${architecture}.attention.head_count`, 0, "heads");
  const headDim =
    reader.count("attention.key_length", limits.width) ?? Math.floor(hiddenSize / mostHeads);
  const tokens = getStrings(metadata, "tokenizer.ggml.tokens");
  const config: ModelConfig = {
    architecture,
    name: getString(metadata, "general.name"),
    numLayers,
    contextLen,
    hiddenSize,
    intermediateSizes:
      reader.perLayer("feed_forward_length", numLayers, limits.width) ??
      new Array<number>(numLayers).fill(0),
    numHeads: numHeads!,
    numKvHeads: reader.perLayer("attention.head_count_kv", numLayers, limits.heads) ?? numHeads!,
    headDim,
    valueDim: reader.count("attention.value_length", limits.width) ?? headDim,
    vocabSize: reader.count("vocab_size", limits.vocabSize) ?? tokens?.length ?? 0,
    normEpsilon:
      reader.float("attention.layer_norm_rms_epsilon") ??
      reader.float("attention.layer_norm_epsilon") ??
      1e-5,
    rotaryDim: reader.count("rope.dimension_count", limits.width, 0) ?? headDim,
    ropeTheta: reader.float("rope.freq_base") ?? 10000,
    ropeScaling: readRopeScaling(reader, contextLen),
    windowLen: reader.count("attention.sliding_window", limits.contextLen, 0) || undefined,
    numExperts: reader.count("expert_count", limits.experts, 0) ?? 0,
    numExpertsPerToken: reader.count("expert_used_count", limits.experts, 0) ?? 0,
  };
  checkHeads(config);
  checkExperts(config);
  return config;
}

/** Query heads come in whole groups per KV head; rotation stays within a head. */
function checkHeads(config: ModelConfig): void {
  const key = (suffix: string) => `${config.architecture}.${suffix}`;
  config.numHeads.forEach((numHeads, layer) => {
    const numKvHeads = config.numKvHeads[layer]!;
    if (numHeads === 0 || (numKvHeads > 0 && numHeads % numKvHeads === 0)) return;
    throw invalid(key("attention.head_count_kv"), numKvHeads, `a divisor of ${numHeads}`);
  });
  const { headDim, rotaryDim } = config;
  if (headDim % 2 !== 0) throw invalid(key("attention.key_length"), headDim, "an even number");
  if (rotaryDim > headDim || rotaryDim % 2 !== 0) {
    throw invalid(key("rope.dimension_count"), rotaryDim, `an even number up to ${headDim}`);
  }
}

/** Each token goes to some of the experts: at least one, at most all. */
function checkExperts({ architecture, numExperts, numExpertsPerToken }: ModelConfig): void {
  if (numExperts === 0) return;
  if (numExpertsPerToken >= 1 && numExpertsPerToken <= numExperts) return;
  const key = `${architecture}.expert_used_count`;
  throw invalid(key, numExpertsPerToken, `a whole number from 1 to ${numExperts}`);
}

function readRopeScaling(reader: Reader, contextLen: number): RopeScaling {
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
  };
}
