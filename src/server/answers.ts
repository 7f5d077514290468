// From a prompt to an answer, in no dialect yet: admission, generation, the split into reasoning
// and content, log probabilities beside the text they belong to, and what is counted.
import type { TokenLogprob } from "../engine/client.ts";
import { checkPrompt } from "../engine/context-limits.ts";
import { requireDecoder } from "../engine/model-file.ts";
import { type GenerationEnd, generateText, type TextEvent } from "../engine/text-generation.ts";
import { checkSampling, type SamplingParameters } from "../sampling/parameters.ts";
import { ReasoningSplitter } from "../template/reasoning.ts";
import type { Exchange } from "./exchange.ts";
import type { ServedModel } from "./served-model.ts";
import type { ServerState } from "./server-state.ts";

export interface AnswerRequest {
  readonly tokenIds: Int32Array;
  readonly sampling: SamplingParameters;
  /** undefined: until the model ends or the context is full. */
  readonly maxTokens: number | undefined;
  readonly stopStrings: readonly string[];
  readonly ignoreEos: boolean;
  /** undefined: the text is content as it comes. */
  readonly splitter: ReasoningSplitter | undefined;
  readonly wantsLogprobs: boolean;
}

/** A token and what else it might have been. */
export interface TokenChoice extends TokenLogprob {
  /** UTF-16 units of the answer's text before its own. */
  readonly textOffset: number;
  readonly top: readonly TokenLogprob[];
}

export type AnswerEvent =
  | {
      readonly kind: "delta";
      readonly reasoning: string;
      readonly content: string;
      /** The tokens of this text, when asked for. */
      readonly tokens: readonly TokenChoice[];
    }
  | GenerationEnd;

export interface Answer {
  readonly reasoning: string;
  readonly content: string;
  readonly tokens: readonly TokenChoice[];
  readonly end: GenerationEnd;
}

/**
 * Checks and admits all requests or none, so that what is wrong becomes a status, not a broken
 * stream. Every stream returned must be read: its end gives the place back.
 */
export function startAnswers(
  server: ServerState,
  model: ServedModel,
  exchange: Exchange,
  requests: readonly AnswerRequest[],
): AsyncGenerator<AnswerEvent>[] {
  const { facts } = model.client;
  requireDecoder(facts);
  for (const { tokenIds, sampling } of requests) {
    checkPrompt(tokenIds, facts);
    checkSampling(sampling, facts.vocabSize);
  }
  if (server.options.logPrompts) {
    const prompts = new Set(requests.map(({ tokenIds }) => tokenIds));
    exchange.record.prompts = [...prompts].map((tokenIds) =>
      model.text.tokenizer.decode(tokenIds, { showSpecial: true }),
    );
  }
  server.admission.enter(requests.length);
  return requests.map((request) => streamAnswer(server, model, exchange, request));
}

async function* streamAnswer(
  server: ServerState,
  model: ServedModel,
  exchange: Exchange,
  request: AnswerRequest,
): AsyncGenerator<AnswerEvent> {
  const start = performance.now();
  try {
    for await (const event of readAnswer(server, model, exchange.signal, request)) {
      if (event.kind === "end") {
        noteEnd(exchange, event);
        if (event.finishReason === "cancelled") throw exchange.signal.reason;
      }
      yield event;
    }
  } finally {
    server.admission.leave(performance.now() - start);
  }
}

async function* readAnswer(
  { metrics }: ServerState,
  { client, text, adapters }: ServedModel,
  signal: AbortSignal,
  request: AnswerRequest,
): AsyncGenerator<AnswerEvent> {
  const parts = new AnswerParts(request);
  const { endOfGenerationIds } = text.tokenizer.specialTokens;
  const stopTokenIds = request.ignoreEos ? [] : [...endOfGenerationIds];
  const textRequest = {
    promptTokenIds: request.tokenIds,
    maxTokens: request.maxTokens ?? Number.MAX_SAFE_INTEGER,
    sampling: request.sampling,
    stopTokenIds,
    adapters,
    stopStrings: request.stopStrings,
  };
  let lastTokenAt: number | undefined;
  for await (const event of generateText(client, text.tokenizer, textRequest, signal)) {
    if (event.kind === "token") {
      const now = performance.now();
      if (lastTokenAt !== undefined) metrics.observeInterToken(now - lastTokenAt);
      lastTokenAt = now;
      const isStop = !request.ignoreEos && endOfGenerationIds.has(event.tokenId);
      const delta = parts.push(event, isStop);
      if (delta !== undefined) yield delta;
    }
    if (event.kind === "rest") {
      const delta = parts.pushText(event.text);
      if (delta !== undefined) yield delta;
    }
    if (event.kind === "end") {
      metrics.observeEnd(event);
      const delta = parts.end(event.stopString !== undefined);
      if (delta !== undefined) yield delta;
      yield event;
    }
  }
}

/** Splits text into reasoning and content and keeps tokens with the text that they became. */
export class AnswerParts {
  readonly #splitter: ReasoningSplitter;
  readonly #wantsLogprobs: boolean;
  /** Tokens whose text has not come out yet. */
  #tokens: TokenChoice[] = [];
  /** White space after reasoning: it belongs to it only when more reasoning follows. */
  #blank = "";
  #hasReasoning = false;
  #hasContent = false;

  constructor({ splitter, wantsLogprobs }: Pick<AnswerRequest, "splitter" | "wantsLogprobs">) {
    this.#splitter = splitter ?? new ReasoningSplitter(undefined, false);
    this.#wantsLogprobs = wantsLogprobs;
  }

  push(event: Extract<TextEvent, { kind: "token" }>, isStop: boolean): AnswerEvent | undefined {
    const { tokenId, textOffset, logprob, top } = event;
    if (this.#wantsLogprobs && !isStop) this.#tokens.push({ tokenId, textOffset, logprob, top });
    return this.pushText(event.text);
  }

  pushText(text: string): AnswerEvent | undefined {
    return text === "" ? undefined : this.#delta(this.#splitter.push(text));
  }

  /** What is left; tokens that became a stop string have no text. */
  end(stoppedByText: boolean): AnswerEvent | undefined {
    if (stoppedByText) this.#tokens = [];
    const rest = this.#splitter.end();
    if (rest.content === "" && rest.reasoning === "" && this.#tokens.length === 0) return undefined;
    return this.#delta(rest) ?? this.#take("", "");
  }

  #delta(part: { reasoning: string; content: string }): AnswerEvent | undefined {
    const reasoning = this.#trimReasoning(part.reasoning);
    // The blank lines between reasoning and content belong to neither.
    const isFirst = !this.#hasContent && this.#hasReasoning;
    const content = isFirst ? part.content.trimStart() : part.content;
    if (content !== "") this.#hasContent = true;
    if (reasoning === "" && content === "") return undefined;
    return this.#take(reasoning, content);
  }

  #take(reasoning: string, content: string): AnswerEvent {
    const tokens = this.#tokens;
    this.#tokens = [];
    return { kind: "delta", reasoning, content, tokens };
  }

  #trimReasoning(text: string): string {
    if (text === "") return "";
    let pending = this.#blank + text;
    if (!this.#hasReasoning) pending = pending.trimStart();
    this.#hasReasoning = true;
    const shown = pending.trimEnd();
    this.#blank = pending.slice(shown.length);
    return shown;
  }
}

function noteEnd({ record }: Exchange, end: GenerationEnd): void {
  record.promptTokens = Math.max(record.promptTokens ?? 0, end.promptTokens);
  record.cachedTokens = (record.cachedTokens ?? 0) + end.cachedTokens;
  record.completionTokens = (record.completionTokens ?? 0) + end.completionTokens;
  record.finishReason = end.finishReason;
}

/** The whole of an answer. */
export async function collectAnswer(events: AsyncIterable<AnswerEvent>): Promise<Answer> {
  let reasoning = "";
  let content = "";
  const tokens: TokenChoice[] = [];
  let end: GenerationEnd | undefined;
  for await (const event of events) {
    if (event.kind === "end") end = event;
    else {
      reasoning += event.reasoning;
      content += event.content;
      tokens.push(...event.tokens);
    }
  }
  return { reasoning, content, tokens, end: end! };
}

/** Reads all answers to their ends at the same time; the first failure stops the others. */
export async function readTogether<T>(
  exchange: Exchange,
  streams: readonly AsyncGenerator<AnswerEvent>[],
  read: (stream: AsyncGenerator<AnswerEvent>, index: number) => Promise<T>,
): Promise<T[]> {
  const readings = streams.map(async (stream, index) => {
    try {
      return await read(stream, index);
    } catch (error) {
      exchange.abort(error);
      throw exchange.signal.reason;
    }
  });
  const results = await Promise.allSettled(readings);
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return results.map((result) => (result as PromiseFulfilledResult<T>).value);
}
