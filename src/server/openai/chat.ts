// POST /v1/chat/completions.
import { z } from "zod";
import { promptLimit } from "../../engine/context-limits.ts";
import type { GenerationEnd } from "../../engine/text-generation.ts";
import { maxLogprobs } from "../../sampling/parameters.ts";
import type { ChatPrompt } from "../../template/chat-prompt.ts";
import type { ChatMessage } from "../../template/messages.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
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
import { contentField, contentText, countField, toStopStrings } from "../request-fields.ts";
import { chatOf, type ServedModel } from "../served-model.ts";
import type { Route, ServerState } from "../server-state.ts";
import { type Send, streamResponse } from "../stream.ts";
import { describeTokens, unixSeconds, usageOf } from "./answer-shapes.ts";
import {
  numChoices,
  refuseUnsupported,
  sharedFields,
  toSampling,
  withChoiceSeed,
} from "./request-fields.ts";

const roles = ["system", "developer", "user", "assistant", "tool", "function"] as const;

export const messageSchema = z.looseObject({
  role: z.enum(roles),
  content: contentField,
  name: z.string().nullish(),
  reasoning_content: z.string().nullish(),
  tool_calls: z.array(z.unknown()).nullish(),
});

const efforts = ["none", "minimal", "low", "medium", "high", "xhigh"] as const;

const chatSchema = z.looseObject({
  ...sharedFields,
  messages: z.array(messageSchema).min(1),
  max_completion_tokens: countField,
  logprobs: z.boolean().nullish(),
  top_logprobs: z.number().int().min(0).max(maxLogprobs).nullish(),
  reasoning_effort: z.enum(efforts).nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
});

type ChatBody = z.infer<typeof chatSchema>;

/** Messages as templates take them; throws for what a text conversation does not have. */
export function toMessages(
  given: readonly z.infer<typeof messageSchema>[],
  template: string,
): ChatMessage[] {
  return given.map((message, index) => {
    const field = `messages[${index}]`;
    if (message.role === "tool" || message.role === "function" || message.tool_calls?.length) {
      throw refuse(message.tool_calls?.length ? `${field}.tool_calls` : `${field}.role`, noTools);
    }
    const { reasoning_content: reasoning, name } = message;
    // "developer" is OpenAI's newer word for "system"; few templates know it.
    const isNewWord = message.role === "developer" && !template.includes("developer");
    return {
      role: isNewWord ? "system" : message.role,
      content: contentText(message, reasoning, field),
      ...(name == null ? {} : { name }),
      ...(reasoning == null ? {} : { reasoning_content: reasoning }),
    };
  });
}

const noTools = "tool calls are not supported yet";

/** Template variables of `reasoning_effort`; a template that knows none cannot honour it. */
function reasoningVariables(effort: ChatBody["reasoning_effort"], chat: ChatPrompt) {
  if (effort == null) return {};
  const { source } = chat.template;
  if (source.includes("reasoning_effort") && effort !== "none") return { reasoning_effort: effort };
  if (source.includes("enable_thinking")) return { enable_thinking: effort !== "none" };
  if (effort === "none" && chat.reasoning === undefined) return {};
  throw refuse("reasoning_effort", `the model's chat template has no setting for '${effort}'`);
}

function maxTokensOf({ max_tokens: older, max_completion_tokens: newer }: ChatBody) {
  return newer ?? older;
}

function readRequests(server: ServerState, model: ServedModel, body: ChatBody): AnswerRequest[] {
  refuseUnsupported(body);
  if (body.top_logprobs && !body.logprobs) {
    throw refuse("top_logprobs", "needs logprobs: true");
  }
  const chat = chatOf(model);
  const variables = {
    ...body.chat_template_kwargs,
    ...reasoningVariables(body.reasoning_effort, chat),
    messages: toMessages(body.messages, chat.template.source),
  };
  const rendered = chat.render(variables, promptLimit(model.client.facts));
  const sampling = toSampling(server, model, body, body.top_logprobs ?? 0);
  return Array.from({ length: numChoices(body, 1) }, (_, index) => ({
    tokenIds: rendered.tokenIds,
    sampling: withChoiceSeed(sampling, index),
    maxTokens: maxTokensOf(body) ?? server.options.maxTokens,
    stopStrings: toStopStrings(body.stop),
    ignoreEos: body.ignore_eos ?? false,
    splitter: rendered.createSplitter(),
    wantsLogprobs: body.logprobs ?? false,
  }));
}

function logprobsOf(tokenizer: Tokenizer, wanted: boolean, tokens: readonly TokenChoice[]) {
  return wanted ? { content: describeTokens(tokenizer, tokens), refusal: null } : null;
}

/** What every piece of one answer repeats. */
function envelope(exchange: Exchange, model: ServedModel, object: string) {
  const created = unixSeconds(exchange.createdAt);
  return { id: `chatcmpl-${exchange.id}`, object, created, model: model.id };
}

async function wholeAnswer(
  exchange: Exchange,
  model: ServedModel,
  body: ChatBody,
  streams: readonly AsyncGenerator<AnswerEvent>[],
): Promise<Response> {
  const answers = await readTogether(exchange, streams, collectAnswer);
  const { tokenizer } = model.text;
  return Response.json({
    ...envelope(exchange, model, "chat.completion"),
    choices: answers.map(({ content, reasoning, tokens, end }, index) => ({
      index,
      message: {
        role: "assistant",
        content,
        ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
        refusal: null,
      },
      logprobs: logprobsOf(tokenizer, body.logprobs ?? false, tokens),
      finish_reason: end.finishReason,
    })),
    usage: usageOf([answers.map(({ end }) => end)]),
    timings: answers[0]!.end.timings,
  });
}

async function sendPieces(
  exchange: Exchange,
  model: ServedModel,
  body: ChatBody,
  streams: readonly AsyncGenerator<AnswerEvent>[],
  send: Send,
): Promise<void> {
  const head = envelope(exchange, model, "chat.completion.chunk");
  const includeUsage = body.stream_options?.include_usage ?? false;
  const usage = includeUsage ? { usage: null } : {};
  const wantsLogprobs = body.logprobs ?? false;
  const { tokenizer } = model.text;
  const sendChoice = (choice: object) => send({ ...head, choices: [choice], ...usage });
  const ends = await readTogether(exchange, streams, async (stream, index) => {
    const first = { role: "assistant", content: "" };
    sendChoice({ index, delta: first, logprobs: null, finish_reason: null });
    let end: GenerationEnd | undefined;
    for await (const event of stream) {
      if (event.kind === "end") {
        end = event;
        sendChoice({ index, delta: {}, logprobs: null, finish_reason: event.finishReason });
        continue;
      }
      const { reasoning, content, tokens } = event;
      const delta = {
        ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
        ...(content === "" ? {} : { content }),
      };
      const logprobs = logprobsOf(tokenizer, wantsLogprobs, tokens);
      sendChoice({ index, delta, logprobs, finish_reason: null });
    }
    return end!;
  });
  if (!includeUsage) return;
  send({ ...head, choices: [], usage: usageOf([ends]), timings: ends[0]!.timings });
}

export const chatRoute: Route = {
  method: "POST",
  path: "/v1/chat/completions",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, chatSchema);
    const model = server.model.named(body.model);
    const streams = startAnswers(server, model, exchange, readRequests(server, model, body));
    if (!body.stream) return wholeAnswer(exchange, model, body, streams);
    return streamResponse("openai", exchange, { onError: server.logBug }, (send) =>
      sendPieces(exchange, model, body, streams, send),
    );
  },
};
