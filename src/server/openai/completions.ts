// POST /v1/completions: text goes on from a prompt as it is, with no chat template.
import { isUtf8 } from "node:buffer";
import { z } from "zod";
import { promptLimit } from "../../engine/context-limits.ts";
import type { GenerationEnd } from "../../engine/text-generation.ts";
import { maxLogprobs } from "../../sampling/parameters.ts";
import type { Tokenizer, TokenLimit } from "../../tokenizer/tokenizer.ts";
import {
  type AnswerEvent,
  type AnswerRequest,
  collectAnswer,
  readTogether,
  startAnswers,
  type TokenChoice,
} from "../answers.ts";
import { readBody } from "../body.ts";
import type { Exchange } from "../exchange.ts";
import { refuse } from "../request-error.ts";
import { toStopStrings } from "../request-fields.ts";
import type { ServedModel } from "../served-model.ts";
import type { Route, ServerState } from "../server-state.ts";
import { type Send, streamResponse } from "../stream.ts";
import { finiteLogprob, tokenString, unixSeconds, usageOf } from "./answer-shapes.ts";
import {
  numChoices,
  refuseUnsupported,
  sharedFields,
  toSampling,
  withChoiceSeed,
} from "./request-fields.ts";

const tokenIds = z.array(z.number().int().min(0).max(0x7fffffff)).min(1);

export const promptField = z.union(
  [z.string(), z.array(z.string()).min(1), tokenIds, z.array(tokenIds).min(1)],
  { error: "expected a string, token ids, or an array of either" },
);

const completionSchema = z.looseObject({
  ...sharedFields,
  prompt: promptField,
  logprobs: z.number().int().min(0).max(maxLogprobs).nullish(),
  echo: z.boolean().nullish(),
  best_of: z.number().int().min(1).nullish(),
});

type CompletionBody = z.infer<typeof completionSchema>;

/** The prompts of a request as token ids. */
export function toPrompts(
  tokenizer: Tokenizer,
  prompt: z.infer<typeof promptField>,
  limit: TokenLimit,
): Int32Array[] {
  if (typeof prompt === "string") return [tokenizer.encode(prompt, { limit })];
  if (typeof prompt[0] === "number") return [Int32Array.from(prompt as number[])];
  return (prompt as (string | number[])[]).map((item) =>
    typeof item === "string" ? tokenizer.encode(item, { limit }) : Int32Array.from(item),
  );
}

/** One answer wanted: its prompt's index and text, and the request. */
interface Choice {
  readonly promptIndex: number;
  /** Repeated before the answer, with `echo`. */
  readonly echoed: string;
  readonly request: AnswerRequest;
}

function readChoices(server: ServerState, model: ServedModel, body: CompletionBody): Choice[] {
  refuseUnsupported(body, ["echo"]);
  if (body.best_of != null && body.best_of !== (body.n ?? 1)) {
    throw refuse("best_of", "not supported yet, unless it equals n");
  }
  if (body.echo && body.logprobs != null) {
    throw refuse("echo", "not supported together with logprobs");
  }
  const { tokenizer } = model.text;
  const prompts = toPrompts(tokenizer, body.prompt, promptLimit(model.client.facts));
  const sampling = toSampling(server, model, body, body.logprobs ?? 0);
  const count = numChoices(body, prompts.length);
  return prompts.flatMap((ids, promptIndex) =>
    Array.from({ length: count }, (_, index) => ({
      promptIndex,
      echoed: body.echo ? tokenizer.decode(ids) : "",
      request: {
        tokenIds: ids,
        sampling: withChoiceSeed(sampling, index),
        maxTokens: body.max_tokens ?? server.options.maxTokens,
        stopStrings: toStopStrings(body.stop),
        ignoreEos: body.ignore_eos ?? false,
        splitter: undefined,
        wantsLogprobs: body.logprobs != null,
      },
    })),
  );
}

/** What this form calls a token: its text, or `bytes:\xe2\x80` where that is not whole. */
function tokenName(tokenizer: Tokenizer, tokenId: number): string {
  const bytes = tokenizer.tokenBytes(tokenId);
  if (isUtf8(bytes)) return tokenString(tokenizer, tokenId);
  return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}

/** The best first; of tokens with the same name only the best. */
function topLogprobs(tokenizer: Tokenizer, top: TokenChoice["top"]): Record<string, number> {
  const byName = new Map<string, number>();
  for (const { tokenId, logprob } of top) {
    const name = tokenName(tokenizer, tokenId);
    if (!byName.has(name)) byName.set(name, finiteLogprob(logprob));
  }
  return Object.fromEntries(byName);
}

/** The older form of log probabilities: parallel arrays. */
function logprobsOf(tokenizer: Tokenizer, wanted: boolean, chosen: readonly TokenChoice[]) {
  if (!wanted) return null;
  return {
    tokens: chosen.map(({ tokenId }) => tokenName(tokenizer, tokenId)),
    token_logprobs: chosen.map(({ logprob }) => finiteLogprob(logprob)),
    top_logprobs: chosen.map(({ top }) => topLogprobs(tokenizer, top)),
    text_offset: chosen.map(({ textOffset }) => textOffset),
  };
}

function envelope(exchange: Exchange, model: ServedModel) {
  const created = unixSeconds(exchange.createdAt);
  return { id: `cmpl-${exchange.id}`, object: "text_completion", created, model: model.id };
}

/** Ends by prompt, as `usageOf` wants them. */
function groupEnds(choices: readonly Choice[], ends: readonly GenerationEnd[]): GenerationEnd[][] {
  const groups: GenerationEnd[][] = [];
  choices.forEach(({ promptIndex }, index) => {
    groups[promptIndex] ??= [];
    groups[promptIndex].push(ends[index]!);
  });
  return groups;
}

async function wholeAnswer(
  exchange: Exchange,
  model: ServedModel,
  body: CompletionBody,
  choices: readonly Choice[],
  streams: readonly AsyncGenerator<AnswerEvent>[],
): Promise<Response> {
  const answers = await readTogether(exchange, streams, collectAnswer);
  const { tokenizer } = model.text;
  const ends = answers.map(({ end }) => end);
  return Response.json({
    ...envelope(exchange, model),
    choices: answers.map(({ content, tokens, end }, index) => ({
      index,
      text: choices[index]!.echoed + content,
      logprobs: logprobsOf(tokenizer, body.logprobs != null, tokens),
      finish_reason: end.finishReason,
    })),
    usage: usageOf(groupEnds(choices, ends)),
    timings: ends[0]!.timings,
  });
}

async function sendPieces(
  exchange: Exchange,
  model: ServedModel,
  body: CompletionBody,
  choices: readonly Choice[],
  streams: readonly AsyncGenerator<AnswerEvent>[],
  send: Send,
): Promise<void> {
  const head = envelope(exchange, model);
  const includeUsage = body.stream_options?.include_usage ?? false;
  const usage = includeUsage ? { usage: null } : {};
  const { tokenizer } = model.text;
  const ends = await readTogether(exchange, streams, async (stream, index) => {
    let end: GenerationEnd | undefined;
    const sendChoice = (text: string, tokens: readonly TokenChoice[], reason: string | null) => {
      const logprobs = logprobsOf(tokenizer, body.logprobs != null, tokens);
      send({ ...head, choices: [{ index, text, logprobs, finish_reason: reason }], ...usage });
    };
    const { echoed } = choices[index]!;
    if (echoed !== "") sendChoice(echoed, [], null);
    for await (const event of stream) {
      if (event.kind === "end") end = event;
      if (event.kind === "end") sendChoice("", [], event.finishReason);
      else sendChoice(event.content, event.tokens, null);
    }
    return end!;
  });
  if (!includeUsage) return;
  const total = usageOf(groupEnds(choices, ends));
  send({ ...head, choices: [], usage: total, timings: ends[0]!.timings });
}

export const completionRoute: Route = {
  method: "POST",
  path: "/v1/completions",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const limit = server.options.maxBodyBytes;
    const body = await readBody(c.req.raw, exchange, limit, completionSchema);
    const model = server.model.named(body.model);
    const choices = readChoices(server, model, body);
    const requests = choices.map(({ request }) => request);
    const streams = startAnswers(server, model, exchange, requests);
    if (!body.stream) return wholeAnswer(exchange, model, body, choices, streams);
    return streamResponse("openai", exchange, { onError: server.logBug }, (send) =>
      sendPieces(exchange, model, body, choices, streams, send),
    );
  },
};
