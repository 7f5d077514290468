// The sampling parameters of a request: their defaults and their bounds. How they act is said in
// src/sampling/reference.ts; kernels/cpu/sample.zig does it.
import { TinferError } from "../core/errors.ts";

export interface SamplingParameters {
  /** Divides the logits before the draw; 0 takes the best token always. */
  readonly temperature: number;
  /** Keeps the best k tokens; 0 keeps all. */
  readonly topK: number;
  /** Keeps the fewest best tokens whose probabilities add up to this; 1 keeps all. */
  readonly topP: number;
  /** Keeps tokens at least this many times as probable as the best one; 0 keeps all. */
  readonly minP: number;
  /** Divides positive and multiplies negative logits of recent tokens; 1 changes nothing. */
  readonly repeatPenalty: number;
  /** How many of the latest tokens the three penalties look at; 0 turns them off. */
  readonly repeatLastN: number;
  /** Subtracted once from the logit of every recent token; 0 changes nothing. */
  readonly presencePenalty: number;
  /** Subtracted for each time that a recent token occurs; 0 changes nothing. */
  readonly frequencyPenalty: number;
  /** Added to the logit of a token id, before all else; -Infinity bans the token. */
  readonly logitBias: ReadonlyMap<number, number>;
  /** Key of the random stream; undefined draws a new one for each request. */
  readonly seed: number | undefined;
  /** How many of the best tokens to report with each token. */
  readonly logprobs: number;
}

/** The longest window of the penalties, and the most biased tokens: room taken per sequence. */
export const maxRepeatLastN = 4096;
export const maxLogitBiases = 1024;
export const maxLogprobs = 20;

/** What a request gets that names nothing: the defaults of llama.cpp, which users know. */
export const defaultSampling: SamplingParameters = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repeatPenalty: 1,
  repeatLastN: 64,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
  seed: undefined,
  logprobs: 0,
};

interface Bounds {
  readonly min: number;
  readonly max: number;
  readonly integer?: true;
  readonly hint: string;
}

/** Named ranges of the numeric fields; the hint says which value turns the stage off. */
export const samplingBounds = {
  temperature: { min: 0, max: 100, hint: "0 takes the best token always; 0.8 is the default" },
  topK: { min: 0, max: 0x7fffffff, integer: true, hint: "0 turns top-k off; 40 is the default" },
  topP: { min: 0, max: 1, hint: "1 turns top-p off; 0.95 is the default" },
  minP: { min: 0, max: 1, hint: "0 turns min-p off; 0.05 is the default" },
  repeatPenalty: { min: 0.01, max: 100, hint: "1 turns the repeat penalty off" },
  repeatLastN: {
    min: 0,
    max: maxRepeatLastN,
    integer: true,
    hint: "the number of latest tokens that are penalised; 0 turns the penalties off",
  },
  presencePenalty: { min: -100, max: 100, hint: "0 turns the presence penalty off" },
  frequencyPenalty: { min: -100, max: 100, hint: "0 turns the frequency penalty off" },
  seed: {
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    integer: true,
    hint: "leave the seed out for a new one each time",
  },
  logprobs: { min: 0, max: maxLogprobs, integer: true, hint: "0 reports none" },
} as const satisfies Partial<Record<keyof SamplingParameters, Bounds>>;

type NumericField = keyof typeof samplingBounds;
const numericFields = Object.keys(samplingBounds) as NumericField[];

/**
 * Returns `parameters` if every field is within its bounds, else throws a usage error that names
 * the field, the bounds and the value. `vocabSize` also bounds the ids of `logitBias`.
 */
export function checkSampling(
  parameters: SamplingParameters,
  vocabSize = Number.MAX_SAFE_INTEGER,
): SamplingParameters {
  for (const field of numericFields) {
    const value = parameters[field];
    if (field === "seed" && value === undefined) continue;
    const bounds: Bounds = samplingBounds[field];
    const { min, max } = bounds;
    const valid =
      typeof value === "number" &&
      value >= min &&
      value <= max &&
      (bounds.integer === undefined || Number.isInteger(value));
    if (valid) continue;
    const kind = bounds.integer ? "an integer" : "a number";
    throw new TinferError(
      "usage",
      `${field} must be ${kind} from ${min} to ${max}, not ${shown(value)}`,
      { hint: bounds.hint, field },
    );
  }
  checkLogitBias(parameters.logitBias, vocabSize);
  return parameters;
}

function checkLogitBias(logitBias: ReadonlyMap<number, number>, vocabSize: number): void {
  if (logitBias.size > maxLogitBiases) {
    throw new TinferError(
      "usage",
      `logitBias names ${logitBias.size} tokens; at most ${maxLogitBiases} are possible`,
      { hint: "use a grammar or a JSON schema to constrain the answer", field: "logitBias" },
    );
  }
  for (const [tokenId, value] of logitBias) {
    if (!Number.isInteger(tokenId) || tokenId < 0 || tokenId >= vocabSize) {
      const range = `from 0 to ${vocabSize - 1}`;
      throw new TinferError(
        "usage",
        `logitBias names the token id ${shown(tokenId)}; ids are integers ${range}`,
        { hint: "`tinfer tokenize MODEL TEXT` prints the ids of a text", field: "logitBias" },
      );
    }
    if (typeof value !== "number" || Number.isNaN(value)) {
      throw new TinferError(
        "usage",
        `logitBias of token ${tokenId} must be a number, not ${shown(value)}`,
        { hint: "positive values favour the token, -100 or -Infinity bans it", field: "logitBias" },
      );
    }
  }
}

function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
