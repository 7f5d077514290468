// Embeddings of a decoder model: the final hidden states of all tokens, pooled. Keeps its own
// session, made at the first request, because its plan ends before the output matrix.
import type { Session } from "../backend/backend.ts";
import type { Plan } from "../plan/builder.ts";
import type { Pooling } from "./client.ts";
import type { LoadedModel } from "./loaded-model.ts";
import { StepDriver } from "./step-driver.ts";

export class HiddenStates implements Disposable {
  readonly #model: LoadedModel;
  #loaded: { plan: Plan; session: Session; maxTokens: number } | undefined;

  constructor(model: LoadedModel) {
    this.#model = model;
  }

  /** `[hiddenSize]`: mean over tokens, or the first or last token's state. */
  pooled(tokenIds: Int32Array, pooling: Pooling): Float32Array {
    const { hiddenSize, maxContextLen } = this.#model.facts;
    this.#loaded ??= this.#model.loadHiddenSession(maxContextLen);
    const result = new Float32Array(hiddenSize);
    const sum = new Float64Array(hiddenSize);
    const { plan, session, maxTokens } = this.#loaded;
    const driver = new StepDriver(session, maxContextLen);
    for (let start = 0; start < tokenIds.length; start += maxTokens) {
      const count = Math.min(maxTokens, tokenIds.length - start);
      driver.run(tokenIds, start, count, "all");
      const states = session.readTensor(plan.hidden!);
      if (pooling === "first" && start === 0) result.set(states.subarray(0, hiddenSize));
      if (pooling === "last") result.set(states.subarray((count - 1) * hiddenSize));
      for (let i = 0; i < states.length; i++) sum[i % hiddenSize]! += states[i]!;
    }
    if (pooling === "mean") result.set(sum.map((value) => value / tokenIds.length));
    return result;
  }

  [Symbol.dispose](): void {
    this.#loaded?.session[Symbol.dispose]();
  }
}
