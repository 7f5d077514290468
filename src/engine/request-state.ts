// One request as the engine sees it: its sequence, its clock and the events nobody has read yet.
import { TinferError } from "../core/errors.ts";
import type { SamplingRow, StepData } from "../plan/step-data.ts";
import type { SamplingParameters } from "../sampling/parameters.ts";
import { randomSeed, sequenceSeed } from "../sampling/philox.ts";
import type { EndReason, GenerationEvent, GenerationRequest, TokenLogprob } from "./client.ts";
import { type Adapted, Sequence } from "./sequence.ts";

export class RequestState {
  readonly sequence: Sequence;
  /** What stops this request's step in the engine's cancel word; 0: nothing does. */
  readonly cancelId: number;
  readonly #stopTokenIds: ReadonlySet<number>;
  readonly #wantedTokens: number;
  readonly #createdAt = performance.now();
  #scheduledAt: number | undefined;
  #firstTokenAt: number | undefined;
  #events: GenerationEvent[] = [];
  #error: unknown;
  #wake: (() => void) | undefined;

  constructor(
    id: number,
    request: GenerationRequest,
    maxContextLen: number,
    cancelId: number,
    adapted: Adapted,
  ) {
    this.cancelId = cancelId;
    const { promptTokenIds, maxTokens, sampling } = request;
    const limits = { maxTokens, maxContextLen };
    const { repeatLastN, logitBias } = sampling;
    const penalties = {
      repeatLastN: usesPenalties(sampling) ? repeatLastN : 0,
      logitBias: logitBias.size > 0 ? logitBias : undefined,
    };
    const row = samplingRow(sampling);
    this.sequence = new Sequence(id, promptTokenIds, limits, row, penalties, adapted);
    this.#wantedTokens = maxTokens;
    this.#stopTokenIds = new Set(request.stopTokenIds);
  }

  markScheduled(): void {
    this.#scheduledAt ??= performance.now();
  }

  #emit(event: GenerationEvent): void {
    this.#events.push(event);
    this.#wake?.();
    this.#wake = undefined;
  }

  emitPromptProgress(): void {
    const { numComputed: computedTokens, promptLen: promptTokens } = this.sequence;
    this.#emit({ kind: "prompt", computedTokens, promptTokens });
  }

  /** Appends the token of output row `row`; returns why the request ends now, if it does. */
  acceptToken(step: StepData, row: number): EndReason | undefined {
    this.#firstTokenAt ??= performance.now();
    const { sequence } = this;
    const tokenId = step.sampledId(row);
    if (tokenId < 0) {
      throw new TinferError("native", "the model's logits are all NaN or -infinity", {
        hint: "the file is damaged, or a --logit-bias bans every token",
      });
    }
    sequence.append(tokenId);
    const top: TokenLogprob[] = [];
    for (let rank = 0; rank < sequence.sampling.numLogprobs; rank++) {
      top.push({ tokenId: step.topId(row, rank), logprob: step.topLogprob(row, rank) });
    }
    this.#emit({ kind: "token", tokenId, logprob: step.sampledLogprob(row), top });
    if (this.#stopTokenIds.has(tokenId)) return "stopToken";
    if (sequence.completionLen < sequence.maxTokens) return undefined;
    return sequence.maxTokens < this.#wantedTokens ? "context" : "length";
  }

  end(reason: EndReason): void {
    const { sequence } = this;
    const now = performance.now();
    const scheduledAt = this.#scheduledAt ?? now;
    const firstTokenAt = this.#firstTokenAt ?? now;
    this.#emit({
      kind: "end",
      reason,
      promptTokens: sequence.promptLen,
      cachedTokens: sequence.numCached,
      completionTokens: sequence.completionLen,
      timings: {
        queueMs: scheduledAt - this.#createdAt,
        ttftMs: firstTokenAt - this.#createdAt,
        promptMs: firstTokenAt - scheduledAt,
        generateMs: now - firstTokenAt,
      },
    });
  }

  fail(error: unknown): void {
    this.#error = error;
    this.#wake?.();
  }

  /** The events since the last call; waits for the first. Throws what the engine failed with. */
  async take(): Promise<readonly GenerationEvent[]> {
    if (this.#events.length === 0 && this.#error === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const events = this.#events;
    if (events.length === 0 && this.#error !== undefined) throw this.#error;
    this.#events = [];
    return events;
  }
}

function usesPenalties(sampling: SamplingParameters): boolean {
  const { repeatPenalty, presencePenalty, frequencyPenalty } = sampling;
  return repeatPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
}

/** The row's form of the parameters; without a seed, a random one. */
function samplingRow(sampling: SamplingParameters): SamplingRow {
  return {
    temperature: sampling.temperature,
    topK: sampling.topK,
    topP: sampling.topP,
    minP: sampling.minP,
    repeatPenalty: sampling.repeatPenalty,
    presencePenalty: sampling.presencePenalty,
    frequencyPenalty: sampling.frequencyPenalty,
    ...sequenceSeed(sampling.seed ?? randomSeed(), 0),
    numLogprobs: sampling.logprobs,
  };
}
