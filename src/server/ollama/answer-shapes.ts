// Pieces of Ollama's answers: the statistics of the last line, and the stream of lines.
import type { GenerationEnd } from "../../engine/text-generation.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
import {
  type AnswerRequest,
  collectAnswer,
  readTogether,
  startAnswers,
  type TokenChoice,
} from "../answers.ts";
import type { Exchange } from "../exchange.ts";
import { describeTokens } from "../openai/answer-shapes.ts";
import type { ServedModel } from "../served-model.ts";
import type { ServerState } from "../server-state.ts";
import { streamResponse } from "../stream.ts";

export function nanoseconds(ms: number): number {
  return Math.round(ms * 1e6);
}

/** What the last line of an answer says beside its text. */
function statistics(exchange: Exchange, end: GenerationEnd) {
  const { timings } = end;
  return {
    done: true,
    done_reason: end.finishReason,
    total_duration: nanoseconds(exchange.elapsedMs),
    // The model was loaded when the server started.
    load_duration: 0,
    prompt_eval_count: end.promptTokens,
    prompt_eval_duration: nanoseconds(timings.promptMs),
    eval_count: end.completionTokens,
    eval_duration: nanoseconds(timings.generateMs),
  };
}

/** Where a route puts the text of an answer: a message, or the fields of the line itself. */
export type PlaceText = (content: string, thinking: string) => object;

/** The answer to one request, in lines or whole. */
export async function answer(
  server: ServerState,
  model: ServedModel,
  exchange: Exchange,
  request: AnswerRequest,
  form: { readonly stream: boolean; readonly place: PlaceText },
): Promise<Response> {
  const { tokenizer } = model.text;
  const { wantsLogprobs } = request;
  const head = () => ({ model: model.id, created_at: new Date().toISOString() });
  const streams = startAnswers(server, model, exchange, [request]);
  if (!form.stream) {
    const [whole] = await readTogether(exchange, streams, collectAnswer);
    const { content, reasoning, tokens, end } = whole!;
    return Response.json({
      ...head(),
      ...form.place(content, reasoning),
      ...logprobsOf(tokenizer, wantsLogprobs, tokens),
      ...statistics(exchange, end),
    });
  }
  return streamResponse("ollama", exchange, { onError: server.logBug }, async (send) => {
    await readTogether(exchange, streams, async (stream) => {
      for await (const event of stream) {
        if (event.kind === "end") {
          send({ ...head(), ...form.place("", ""), ...statistics(exchange, event) });
          continue;
        }
        const { content, reasoning, tokens } = event;
        const logprobs = logprobsOf(tokenizer, wantsLogprobs, tokens);
        send({ ...head(), ...form.place(content, reasoning), ...logprobs, done: false });
      }
    });
  });
}

function logprobsOf(tokenizer: Tokenizer, wanted: boolean, tokens: readonly TokenChoice[]) {
  return wanted ? { logprobs: describeTokens(tokenizer, tokens) } : {};
}

/** The answer to a request with nothing to answer: the model is loaded already. */
export function loaded(model: ServedModel, place: PlaceText): Response {
  const line = {
    model: model.id,
    created_at: new Date().toISOString(),
    ...place("", ""),
    done: true,
    done_reason: "load",
  };
  return Response.json(line);
}
