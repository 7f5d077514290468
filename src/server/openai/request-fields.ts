// The fields that OpenAI's chat and completion requests share: their schema, their sampling
// parameters, and those that are refused because they could not be honoured.
import { z } from "zod";
import { maxLogitBiases, type SamplingParameters } from "../../sampling/parameters.ts";
import { invalidField, refuse } from "../request-error.ts";
import {
  anyValues,
  countField,
  mergeSampling,
  samplingNumber,
  seedField,
  stopField,
  toSeed,
} from "../request-fields.ts";
import type { ServedModel } from "../served-model.ts";
import type { ServerState } from "../server-state.ts";

/** Answers to one prompt, and to all prompts of one request. */
const maxChoices = 128;

/** Fields that have no effect on the answer by their nature; read and left alone. */
const harmless = [
  "user",
  "metadata",
  "safety_identifier",
  "prompt_cache_key",
  "prompt_cache_retention",
  "parallel_tool_calls",
];

/** What each of these fields may say without asking for something that is not there. */
const neutralValues: Readonly<Record<string, readonly unknown[]>> = {
  functions: [[]],
  function_call: ["none", "auto"],
  tools: [[]],
  tool_choice: ["none", "auto"],
  response_format: [{ type: "text" }],
  modalities: [["text"]],
  audio: [],
  prediction: [],
  web_search_options: [],
  verbosity: ["medium"],
  store: [false],
  service_tier: ["auto", "default"],
  suffix: [""],
  grammar: [""],
  json_schema: [],
  guided_json: [],
  guided_regex: [],
  guided_choice: [],
  guided_grammar: [],
  structured_outputs: [],
  context_policy: ["error"],
  priority: [0],
  typical_p: [1],
  mirostat: [0],
  mirostat_mode: [0],
  dynatemp_range: [0],
  xtc_probability: [0],
  dry_multiplier: [0],
  top_n_sigma: [0, -1],
  min_tokens: [0],
  use_beam_search: [false],
  length_penalty: [1],
  continue_final_message: [false],
  add_generation_prompt: [true],
  echo: [false],
};

export const sharedFields = {
  model: z.string().nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  stop: stopField,
  seed: seedField,
  n: countField,
  temperature: samplingNumber("temperature"),
  top_p: samplingNumber("topP"),
  // -1 means "all tokens" in other servers.
  top_k: z.union([z.literal(-1), samplingNumber("topK")], {
    error: "expected a whole number from 0, or -1 for all tokens",
  }),
  min_p: samplingNumber("minP"),
  repeat_penalty: samplingNumber("repeatPenalty"),
  repetition_penalty: samplingNumber("repeatPenalty"),
  repeat_last_n: samplingNumber("repeatLastN"),
  presence_penalty: samplingNumber("presencePenalty"),
  frequency_penalty: samplingNumber("frequencyPenalty"),
  logit_bias: z
    .record(z.string().regex(/^\d+$/, "keys are token ids"), z.number().min(-100).max(100))
    .nullish(),
  ignore_eos: z.boolean().nullish(),
  max_tokens: countField,
  ...anyValues([...harmless, ...Object.keys(neutralValues)]),
};

const sharedSchema = z.looseObject(sharedFields);
export type SharedFields = z.infer<typeof sharedSchema>;

/** Throws a 400 for a field that asks for what is not there; `supported` are the dialect's own. */
export function refuseUnsupported(
  body: Readonly<Record<string, unknown>>,
  supported: readonly string[] = [],
): void {
  for (const [name, neutral] of Object.entries(neutralValues)) {
    const value = body[name];
    if (value === undefined || value === null || supported.includes(name)) continue;
    if (neutral.some((allowed) => Bun.deepEquals(allowed, value))) continue;
    throw refuse(name, "not supported yet", "leave the field out");
  }
}

function toLogitBias(
  biases: SharedFields["logit_bias"],
  vocabSize: number,
): ReadonlyMap<number, number> | undefined {
  if (biases == null) return undefined;
  const byId = new Map(Object.entries(biases).map(([id, bias]) => [Number(id), bias]));
  if (byId.size > maxLogitBiases) {
    throw invalidField("logit_bias", `${byId.size} tokens are too many: at most ${maxLogitBiases}`);
  }
  const wrong = [...byId.keys()].find((id) => id >= vocabSize);
  if (wrong === undefined) return byId;
  throw invalidField("logit_bias", `${wrong} is no token id: they go from 0 to ${vocabSize - 1}`);
}

export function toSampling(
  server: ServerState,
  { client }: ServedModel,
  body: SharedFields,
  logprobs: number,
): SamplingParameters {
  const { seed, top_k: topK } = body;
  if (body.repeat_penalty != null && body.repetition_penalty != null) {
    throw refuse("repetition_penalty", "another name of repeat_penalty: give only one");
  }
  return mergeSampling(server.options.sampling, {
    temperature: body.temperature,
    topP: body.top_p,
    topK: topK === -1 ? 0 : topK,
    minP: body.min_p,
    repeatPenalty: body.repeat_penalty ?? body.repetition_penalty,
    repeatLastN: body.repeat_last_n,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    logitBias: toLogitBias(body.logit_bias, client.facts.vocabSize),
    seed: seed == null ? undefined : toSeed(seed),
    logprobs,
  });
}

/** Choices for one prompt; each has a seed of its own, so that they differ. */
export function numChoices({ n }: SharedFields, numPrompts: number): number {
  const count = n ?? 1;
  if (count * numPrompts <= maxChoices) return count;
  const asked = numPrompts === 1 ? `${count}` : `${count} for each of ${numPrompts} prompts`;
  throw refuse("n", `${asked} is too many: at most ${maxChoices} answers to one request`);
}

export function withChoiceSeed(sampling: SamplingParameters, index: number): SamplingParameters {
  const { seed } = sampling;
  if (seed === undefined || index === 0) return sampling;
  return { ...sampling, seed: (seed + index) % Number.MAX_SAFE_INTEGER };
}
