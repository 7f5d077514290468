// The final hidden states of texts, pooled. An encoder's session is the model's own and takes
// several texts in one step; a decoder's is made at the first request, because its plan ends
// before the output matrix, and takes a text after the other, in chunks.
import type { Session } from "../backend/backend.ts";
import { TinferError } from "../core/errors.ts";
import type { Plan } from "../plan/builder.ts";
import type { Tensor } from "../plan/ops.ts";
import type { LoadedModel } from "./loaded-model.ts";
import { Pooler, type Pooling } from "./pooling.ts";
import { StepDriver, type StepPart } from "./step-driver.ts";

/** A session whose plan ends in hidden states, and the largest step it takes. */
export interface HiddenSession {
  readonly plan: Plan;
  readonly session: Session;
  /** What it takes beside the model's own session. */
  readonly ownBytes: number;
  readonly maxTokens: number;
  readonly maxSequences: number;
}

export class HiddenStates implements Disposable {
  readonly #model: LoadedModel;
  /** Owned where it is not the model's own. */
  #loaded: HiddenSession | undefined;

  constructor(model: LoadedModel) {
    this.#model = model;
  }

  /** Memory taken for it so far. */
  get bytes(): number {
    return this.#loaded?.ownBytes ?? 0;
  }

  /**
   * Of each prompt `[hiddenSize]`, `[tokens, hiddenSize]` without pooling, or its scores; in steps,
   * one use at a time. `cancelId`: what stops one of them (StepData), which throws "cancelled".
   */
  *pooled(
    prompts: readonly Int32Array[],
    pooling: Pooling,
    adapterScales: Float32Array,
    cancelId: number,
  ): Generator<void, Float32Array[]> {
    const { isEncoder, maxContextLen } = this.#model.facts;
    this.#loaded ??= this.#model.hiddenSession(maxContextLen);
    const { plan, session, ...limits } = this.#loaded;
    const driver = new StepDriver(session, maxContextLen);
    session.stepData.setAdapterScales(0, limits.maxTokens, adapterScales);
    const tensor = pooling === "rank" ? scoresOf(plan) : plan.hidden!;
    // An encoder's head reads [CLS], a decoder's the token that has seen all others.
    const row = isEncoder ? "cls" : "last";
    const { width } = tensor;
    const poolers = prompts.map(({ length }) => {
      return new Pooler(pooling === "rank" ? row : pooling, width, length);
    });
    for (const parts of stepsOf(prompts, limits)) {
      driver.runParts(parts, cancelId);
      const states = session.readTensor(tensor);
      let first = 0;
      for (const { index, count } of parts) {
        poolers[index]!.add(states.subarray(first * width, (first + count) * width));
        first += count;
      }
      yield;
    }
    return poolers.map((pooler) => pooler.result());
  }

  /** Releases the session; the next request makes another. */
  [Symbol.dispose](): void {
    const session = this.#loaded?.session;
    this.#loaded = undefined;
    if (session !== undefined && session !== this.#model.session) this.#model.release(session);
  }
}

function scoresOf({ scores }: Plan): Tensor {
  if (scores !== undefined) return scores;
  throw new TinferError("unsupported", "the model has no head that scores texts", {
    hint: "take a reranker: a file with pooling_type 4 and the tensor cls.output.weight",
  });
}

/** Cuts prompts into steps: whole ones side by side while they fit, longer ones by themselves. */
export function* stepsOf(
  prompts: readonly Int32Array[],
  { maxTokens, maxSequences }: { maxTokens: number; maxSequences: number },
): Generator<(StepPart & { readonly index: number })[]> {
  let parts: (StepPart & { readonly index: number })[] = [];
  let numTokens = 0;
  for (const [index, tokenIds] of prompts.entries()) {
    for (let start = 0; start < tokenIds.length; start += maxTokens) {
      const count = Math.min(maxTokens, tokenIds.length - start);
      // A later chunk of a prompt needs what the earlier ones left in the cache.
      if (start > 0 || numTokens + count > maxTokens || parts.length === maxSequences) {
        if (parts.length > 0) yield parts;
        parts = [];
        numTokens = 0;
      }
      parts.push({ index, tokenIds, start, count });
      numTokens += count;
    }
  }
  if (parts.length > 0) yield parts;
}
