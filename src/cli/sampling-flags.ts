// The sampling flags, shared by run and chat.

import { TinferError } from "../core/errors.ts";
import { checkSampling, defaultSampling, type SamplingParameters } from "../sampling/parameters.ts";
import type { Flags, FlagValues } from "./flags.ts";

export const samplingFlags: Flags = {
  temperature: {
    kind: "number",
    placeholder: "T",
    description: "0 always takes the best token; higher is more varied",
    elsewhere: ["temp"],
    default: defaultSampling.temperature,
  },
  "top-k": {
    kind: "number",
    placeholder: "K",
    description: "keep the K best tokens; 0 = all",
    default: defaultSampling.topK,
  },
  "top-p": {
    kind: "number",
    placeholder: "P",
    description: "keep the best tokens that make up P of the probability; 1 = all",
    default: defaultSampling.topP,
  },
  "min-p": {
    kind: "number",
    placeholder: "P",
    description: "keep tokens with at least P of the best one's probability; 0 = all",
    default: defaultSampling.minP,
  },
  "repeat-penalty": {
    kind: "number",
    placeholder: "X",
    description: "divide the logits of recent tokens by X; 1 = off",
    default: defaultSampling.repeatPenalty,
  },
  "repeat-last-n": {
    kind: "number",
    placeholder: "N",
    description: "how many recent tokens the penalties look at",
    default: defaultSampling.repeatLastN,
  },
  "presence-penalty": {
    kind: "number",
    placeholder: "X",
    description: "subtracted once from tokens that occurred",
    default: defaultSampling.presencePenalty,
  },
  "frequency-penalty": {
    kind: "number",
    placeholder: "X",
    description: "subtracted for every occurrence",
    default: defaultSampling.frequencyPenalty,
  },
  "logit-bias": {
    kind: "list",
    placeholder: "ID=V",
    description: "add V to the logit of token ID; -inf bans it",
  },
  seed: {
    kind: "number",
    placeholder: "N",
    description: "random seed; default: a new one each time",
  },
  "max-tokens": {
    kind: "number",
    placeholder: "N",
    short: "n",
    description: "most tokens to generate; default: until the model ends or the context is full",
    elsewhere: ["n-predict", "predict"],
  },
  stop: { kind: "list", placeholder: "TEXT", description: "end the answer before this text" },
  "ignore-eos": {
    kind: "boolean",
    description: "go on after the model's end-of-generation tokens",
    default: false,
  },
};

function logitBias(entries: readonly string[]): ReadonlyMap<number, number> {
  const biases = new Map<number, number>();
  for (const entry of entries) {
    const [id, value] = entry.split("=");
    const tokenId = Number(id);
    const bias = value === "-inf" ? Number.NEGATIVE_INFINITY : Number(value);
    if (id === "" || value === undefined || value === "" || Number.isNaN(tokenId + bias)) {
      throw new TinferError("usage", `--logit-bias is '${entry}'`, {
        hint: "give ID=VALUE, e.g. 13=-1.5, or 13=-inf to ban a token",
      });
    }
    biases.set(tokenId, bias);
  }
  return biases;
}

/** The sampling of a command line, within its bounds but for those of the vocabulary. */
export function samplingParameters(values: FlagValues): SamplingParameters {
  return checkSampling({
    temperature: values.number("temperature")!,
    topK: values.number("top-k")!,
    topP: values.number("top-p")!,
    minP: values.number("min-p")!,
    repeatPenalty: values.number("repeat-penalty")!,
    repeatLastN: values.number("repeat-last-n")!,
    presencePenalty: values.number("presence-penalty")!,
    frequencyPenalty: values.number("frequency-penalty")!,
    logitBias: logitBias(values.list("logit-bias")),
    seed: values.number("seed"),
    logprobs: 0,
  });
}

/** Tokens to generate: a number, or as many as the context holds. */
export function maxTokens(values: FlagValues): number {
  const wanted = values.number("max-tokens");
  if (wanted === undefined) return Number.MAX_SAFE_INTEGER;
  if (Number.isInteger(wanted) && wanted > 0) return wanted;
  throw new TinferError("usage", `--max-tokens is ${wanted}, wanted a whole number above 0`);
}
