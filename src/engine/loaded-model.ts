// A model that is loaded: its file, its plan and the session that runs it. Owns all of them and
// releases them in reverse order.
import type { Session } from "../backend/backend.ts";
import { cpuReport } from "../native/cpu-report.ts";
import type { Plan } from "../plan/builder.ts";
import type { LoadedModelFacts } from "./client.ts";
import type { MemoryPlan } from "./memory-plan.ts";
import { ModelFile } from "./model-file.ts";
import { type PlannedModel, planModel } from "./model-plan.ts";
import type { ModelOptions } from "./options.ts";

export class LoadedModel implements Disposable {
  readonly file: ModelFile;
  readonly plan: Plan;
  readonly memoryPlan: MemoryPlan;
  readonly session: Session;
  readonly facts: LoadedModelFacts;
  readonly #options: ModelOptions;

  /** With "mapped", the file's pages come into memory at their first use, or by `file`. */
  constructor(
    path: string,
    options: ModelOptions,
    residency: "populated" | "mapped" = "populated",
  ) {
    const start = performance.now();
    this.#options = options;
    using cleanup = new DisposableStack();
    this.file = cleanup.use(new ModelFile(path));
    const planned = planModel(this.file, "tokens", options);
    this.plan = planned.plan;
    this.memoryPlan = planned.memoryPlan;
    if (residency === "populated") this.file.populate();
    this.session = cleanup.use(this.#load(planned));
    cleanup.move();
    this.facts = this.#facts(path, planned.backend.name, performance.now() - start);
  }

  #load({ backend, plan, memoryPlan }: PlannedModel): Session {
    const { limits, layout, numThreads } = memoryPlan;
    const { cpuVariant } = this.#options;
    return backend.load(plan, layout, { limits, weights: this.file, numThreads, cpuVariant });
  }

  /** A session of the same weights that ends in the hidden state of every token; the caller's. */
  loadHiddenSession(contextLen: number): { plan: Plan; session: Session; maxTokens: number } {
    const maxTokens = this.#options.maxTokensPerStep;
    const options = { ...this.#options, contextLen, maxSequences: 1, maxOutputsPerStep: maxTokens };
    const planned = planModel(this.file, "hidden", options);
    return { plan: planned.plan, session: this.#load(planned), maxTokens };
  }

  #facts(path: string, backend: string, loadMs: number): LoadedModelFacts {
    const { config } = this.file;
    const { memory, maxContextLen, numThreads, limits } = this.memoryPlan;
    return {
      path,
      architecture: config.architecture,
      name: config.name,
      mainType: this.file.mainType,
      backend,
      cpuVariant: this.#options.cpuVariant ?? cpuReport().bestVariant,
      numThreads,
      parameters: this.file.numParameters,
      maxContextLen,
      trainedContextLen: config.contextLen,
      vocabSize: config.vocabSize,
      hiddenSize: config.hiddenSize,
      maxSequences: limits.maxSequences,
      weightBytes: this.file.weightBytes,
      ...memory,
      loadMs,
    };
  }

  [Symbol.dispose](): void {
    this.session[Symbol.dispose]();
    this.file[Symbol.dispose]();
  }
}
