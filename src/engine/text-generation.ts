// From token events to text: detokenizes, watches for stop strings, counts. Runs on the thread of
// whoever shows the text; the engine knows tokens only.
import { StopMatcher } from "../sampling/stop.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type {
  EngineClient,
  GenerationEvent,
  GenerationRequest,
  Timings,
  TokenLogprob,
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
  const clock = new Clock();
  let completionTokens = 0;
  for await (const event of client.generate(request, signal)) {
    if (event.kind === "prompt") yield event;
    if (event.kind === "token") {
      clock.markToken();
      completionTokens++;
      const { tokenId, logprob, top } = event;
      const { text, stopped } = stops.push(detokenizer.push(tokenId));
      yield { kind: "token", tokenId, text, logprob, top };
      if (stopped === undefined) continue;
      yield {
        kind: "end",
        finishReason: "stop",
        stopString: stopped,
        contextFull: false,
        promptTokens: request.promptTokenIds.length,
        cachedTokens: 0,
        completionTokens,
        timings: clock.timings(),
      };
      return; // Leaving the loop cancels what the engine still does for this request.
    }
    if (event.kind === "end") {
      const last = stops.push(detokenizer.end());
      const rest = last.text + (last.stopped === undefined ? stops.end() : "");
      if (rest !== "") yield { kind: "rest", text: rest };
      const { reason, ...counts } = event;
      yield {
        ...counts,
        finishReason: finishReasons[reason],
        stopString: last.stopped,
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

/** Times as seen from here, for requests that this side ends. */
class Clock {
  readonly #start = performance.now();
  #firstToken: number | undefined;

  markToken(): void {
    this.#firstToken ??= performance.now();
  }

  timings(): Timings {
    const now = performance.now();
    const ttftMs = (this.#firstToken ?? now) - this.#start;
    return { queueMs: 0, ttftMs, promptMs: ttftMs, generateMs: now - this.#start - ttftMs };
  }
}
