// From token events to text: detokenizes, watches for stop strings, counts. Runs on the thread of
// whoever shows the text; the engine knows tokens only.
import { StopMatcher } from "../sampling/stop.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import {
  type EngineClient,
  type GenerationEvent,
  type GenerationRequest,
  hasEnough,
  type Timings,
  type TokenLogprob,
} from "./client.ts";

export interface TextRequest extends GenerationRequest {
  readonly stopStrings: readonly string[];
  /** Control tokens appear in the text. */
  readonly showSpecial?: boolean;
}

export type FinishReason = "stop" | "length" | "cancelled";

export interface GenerationEnd {
  readonly kind: "end";
  readonly finishReason: FinishReason;
  /** The stop string that ended the text, if one did. */
  readonly stopString: string | undefined;
  /** The context was full before `maxTokens` were reached. */
  readonly contextFull: boolean;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly timings: Timings;
}

export type TextEvent =
  /** One token and the text that may be shown now; it may be empty while characters are pending. */
  | {
      readonly kind: "token";
      readonly tokenId: number;
      readonly text: string;
      /** UTF-16 units of text before this token's own, held back or not. */
      readonly textOffset: number;
      readonly logprob: number;
      readonly top: readonly TokenLogprob[];
    }
  /** Text held back until now, at the end only. */
  | { readonly kind: "rest"; readonly text: string }
  | Extract<GenerationEvent, { kind: "prompt" }>
  | GenerationEnd;

export async function* generateText(
  client: EngineClient,
  tokenizer: Tokenizer,
  request: TextRequest,
  signal?: AbortSignal,
): AsyncGenerator<TextEvent> {
  const stops = new StopMatcher(request.stopStrings);
  const detokenizer = tokenizer.createDetokenizer({ showSpecial: request.showSpecial ?? false });
  const stopping = new AbortController();
  const signals = signal === undefined ? [stopping.signal] : [signal, stopping.signal];
  let stopString: string | undefined;
  let completionTokens = 0;
  let textLen = 0;
  for await (const event of client.generate(request, AbortSignal.any(signals))) {
    if (event.kind === "prompt") yield event;
    // Tokens that were under way when the stop string came are not part of the answer.
    if (event.kind === "token" && stopString === undefined) {
      completionTokens++;
      const { tokenId, logprob, top } = event;
      const textOffset = textLen;
      const piece = detokenizer.push(tokenId);
      textLen += piece.length;
      const { text, stopped } = stops.push(piece);
      if (stopped !== undefined) {
        stopString = stopped;
        // The engine ends within a step and then says what it has counted.
        stopping.abort(hasEnough);
      }
      yield { kind: "token", tokenId, text, textOffset, logprob, top };
    }
    if (event.kind === "end") {
      if (stopString === undefined) {
        const last = stops.push(detokenizer.end());
        stopString = last.stopped;
        const rest = last.text + (stopString === undefined ? stops.end() : "");
        if (rest !== "") yield { kind: "rest", text: rest };
      }
      const { reason, ...counts } = event;
      yield {
        ...counts,
        completionTokens,
        finishReason: stopString === undefined ? finishReasons[reason] : "stop",
        stopString,
        contextFull: reason === "context",
      };
    }
  }
}

const finishReasons = {
  stopToken: "stop",
  length: "length",
  context: "length",
  cancelled: "cancelled",
} as const;
