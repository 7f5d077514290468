// The fields that Ollama's generate and chat requests share: `options`, `keep_alive`, `think`,
// `format`. What asks for something that is not there is refused by name.
import { z } from "zod";
import { maxLogprobs, type SamplingParameters } from "../../sampling/parameters.ts";
import type { ChatPrompt } from "../../template/chat-prompt.ts";
import { RequestError, refuse } from "../request-error.ts";
import {
  anyValues,
  mergeSampling,
  samplingNumber,
  seedField,
  stopField,
  toSeed,
} from "../request-fields.ts";
import type { ServedModel } from "../served-model.ts";
import type { ServerState } from "../server-state.ts";

/** Values of options that ask for nothing; any other value is refused. */
const neutralOptions: Readonly<Record<string, readonly unknown[]>> = {
  typical_p: [1],
  tfs_z: [1],
  mirostat: [0],
  mirostat_tau: [],
  mirostat_eta: [],
  penalize_newline: [true],
};

/** How a model is loaded is the operator's choice, not a request's. */
const loadOptions: Readonly<Record<string, string>> = {
  num_batch: "",
  num_gpu: "",
  main_gpu: "",
  num_thread: "--threads",
  low_vram: "",
  f16_kv: "--kv-type",
  numa: "",
  use_mmap: "",
  use_mlock: "",
  vocab_only: "",
};

/** Options that every request may name: its context, and what is refused. */
export const contextOptions = {
  num_ctx: z.number().int().min(1).nullish(),
  ...anyValues([...Object.keys(neutralOptions), ...Object.keys(loadOptions)]),
};

const optionsField = z
  .looseObject({
    ...contextOptions,
    num_predict: z.number().int().min(-2).nullish(),
    // The context is never shifted, so that keeping its start asks for nothing.
    num_keep: z.number().int().nullish(),
    seed: seedField,
    stop: stopField,
    temperature: samplingNumber("temperature"),
    top_k: samplingNumber("topK"),
    top_p: samplingNumber("topP"),
    min_p: samplingNumber("minP"),
    repeat_penalty: samplingNumber("repeatPenalty"),
    repeat_last_n: z.union([z.literal(-1), samplingNumber("repeatLastN")], {
      error: "expected a whole number from 0, or -1 for the whole context",
    }),
    presence_penalty: samplingNumber("presencePenalty"),
    frequency_penalty: samplingNumber("frequencyPenalty"),
  })
  .nullish();
type Options = z.infer<typeof optionsField>;

/** 30, "5m", "1h30m", "-1": as Go writes durations. */
const durationText = /^-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$|^-?\d+$/;
const keepAliveError = 'expected seconds or a duration such as "5m"';
const keepAliveField = z
  .union([z.number(), z.string().regex(durationText, keepAliveError)], { error: keepAliveError })
  .nullish();

export const sharedFields = {
  model: z.string().nullish(),
  stream: z.boolean().nullish(),
  options: optionsField,
  keep_alive: keepAliveField,
  think: z
    .union([z.boolean(), z.enum(["low", "medium", "high"])], {
      error: 'expected true, false, "low", "medium" or "high"',
    })
    .nullish(),
  format: z.unknown().optional(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.number().int().min(0).max(maxLogprobs).nullish(),
};

const sharedSchema = z.looseObject(sharedFields);
export type SharedFields = z.infer<typeof sharedSchema>;

export function refuseUnsupported(body: Partial<SharedFields>): void {
  if (body.format != null && body.format !== "") {
    throw refuse("format", "structured output is not supported yet", "leave the field out");
  }
  if (/^-?0+(\.0+)?[a-zµ]*$/.test(String(body.keep_alive ?? ""))) {
    throw refuse("keep_alive", "0 asks to unload the model, which this server keeps until it ends");
  }
  if (body.top_logprobs && !body.logprobs) throw refuse("top_logprobs", "needs logprobs: true");
  checkOptions(body.options ?? {});
}

function checkOptions(options: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(options)) {
    if (value === null) continue;
    const flag = loadOptions[name];
    if (flag !== undefined) {
      const hint = flag === "" ? {} : { hint: `start \`tinfer serve\` with ${flag}` };
      const message = `options.${name}: set when the model is loaded, not by a request`;
      throw new RequestError(400, message, { field: `options.${name}`, ...hint });
    }
    const neutral = neutralOptions[name];
    if (neutral !== undefined && !neutral.includes(value)) {
      throw refuse(`options.${name}`, "not supported yet", "leave the option out");
    }
  }
}

/** Template variables of `think`; a model that cannot think cannot be asked to. */
export function thinkVariables(think: SharedFields["think"], chat: ChatPrompt, id: string) {
  if (think == null) return {};
  const { source } = chat.template;
  if (typeof think === "string" && source.includes("reasoning_effort")) {
    return { reasoning_effort: think };
  }
  if (source.includes("enable_thinking")) return { enable_thinking: think !== false };
  if (think === false ? chat.reasoning === undefined : chat.reasoning !== undefined) return {};
  const wish = think === false ? "be told not to think" : "think";
  throw refuse("think", `${id} cannot ${wish}: its chat template has no form for it`);
}

/** The window of the penalties; -1 is the context, as far as the sampler's window reaches. */
function repeatWindow(given: number | null | undefined, contextLen: number) {
  if (given !== -1) return given;
  const parsed = samplingNumber("repeatLastN").safeParse(contextLen);
  if (parsed.success) return contextLen;
  throw refuse("options.repeat_last_n", `-1 means ${contextLen} tokens here, which is too many`);
}

export interface Limits {
  readonly sampling: SamplingParameters;
  readonly maxTokens: number | undefined;
}

/** The tokens that the request's prompt and answer may have. */
export function contextLenOf(
  { client }: ServedModel,
  { num_ctx: asked }: Pick<NonNullable<Options>, "num_ctx">,
): number {
  const { maxContextLen } = client.facts;
  if (asked == null || asked <= maxContextLen) return asked ?? maxContextLen;
  throw refuse(
    "options.num_ctx",
    `${asked} tokens are more than the ${maxContextLen} that the model is loaded with`,
    "start `tinfer serve` with a larger --ctx",
  );
}

/** Sampling and length of an answer to `promptTokens` tokens. */
export function toLimits(
  server: ServerState,
  model: ServedModel,
  body: SharedFields,
  promptTokens: number,
): Limits {
  const options = body.options ?? {};
  const contextLen = contextLenOf(model, options);
  if (promptTokens >= contextLen) {
    const message = `the prompt has ${promptTokens} tokens, the context ${contextLen}`;
    throw new RequestError(400, `${message}; one must stay free for the answer`, {
      field: options.num_ctx == null ? "prompt" : "options.num_ctx",
      code: "context_length_exceeded",
      hint: "shorten the prompt, or raise options.num_ctx and --ctx",
    });
  }
  const sampling = mergeSampling(server.options.sampling, {
    temperature: options.temperature,
    topK: options.top_k,
    topP: options.top_p,
    minP: options.min_p,
    repeatPenalty: options.repeat_penalty,
    repeatLastN: repeatWindow(options.repeat_last_n, contextLen),
    presencePenalty: options.presence_penalty,
    frequencyPenalty: options.frequency_penalty,
    seed: options.seed == null || options.seed === -1 ? undefined : toSeed(options.seed),
    logprobs: body.top_logprobs ?? 0,
  });
  return { sampling, maxTokens: maxTokensOf(server, options, contextLen - promptTokens) };
}

/** -1 and -2 are Ollama's words for "as much as there is room for". */
function maxTokensOf(
  server: ServerState,
  { num_predict: wanted }: NonNullable<Options>,
  room: number,
) {
  if (wanted === 0) throw refuse("options.num_predict", "0 tokens are no answer; give 1 or more");
  if (wanted == null) return Math.min(server.options.maxTokens ?? room, room);
  return wanted < 0 ? room : Math.min(wanted, room);
}
