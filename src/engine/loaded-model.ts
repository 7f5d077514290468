// A model that is loaded: its file, its plan and the session that runs it. Owns all of them and
// releases them in reverse order.
import type { Session } from "../backend/backend.ts";
import { selectBackend } from "../backend/select.ts";
import { TinferError } from "../core/errors.ts";
import { cpuReport } from "../native/cpu-report.ts";
import type { Plan } from "../plan/builder.ts";
import type { LoadedModelFacts } from "./client.ts";
import { availableMemoryBytes, defaultNumThreads } from "./machine.ts";
import { type MemoryPlan, planMemory } from "./memory-plan.ts";
import { ModelFile } from "./model-file.ts";
import type { ModelOptions } from "./options.ts";

export class LoadedModel implements Disposable {
  readonly file: ModelFile;
  readonly plan: Plan;
  readonly memoryPlan: MemoryPlan;
  readonly session: Session;
  readonly facts: LoadedModelFacts;
  readonly #options: ModelOptions;

  constructor(path: string, options: ModelOptions) {
    const start = performance.now();
    checkOptions(options);
    this.#options = options;
    using cleanup = new DisposableStack();
    this.file = cleanup.use(new ModelFile(path));
    this.file.populate();
    this.plan = this.file.buildPlan("tokens", options.slidingWindow);
    this.memoryPlan = this.#planMemory(this.plan, options);
    this.session = cleanup.use(this.#load(this.plan, this.memoryPlan));
    cleanup.move();
    this.facts = this.#facts(path, performance.now() - start);
  }

  #planMemory(plan: Plan, options: ModelOptions): MemoryPlan {
    const backend = selectBackend(options.backend);
    const numThreads = options.numThreads ?? defaultNumThreads();
    const withThreads = { ...options, numThreads };
    return planMemory(plan, this.file.config, backend, withThreads, availableMemoryBytes());
  }

  #load(plan: Plan, memoryPlan: MemoryPlan): Session {
    const { limits, layout, numThreads } = memoryPlan;
    const { cpuVariant, backend } = this.#options;
    const options = { limits, weights: this.file, numThreads, cpuVariant };
    return selectBackend(backend).load(plan, layout, options);
  }

  /** A session of the same weights that ends in the hidden state of every token; the caller's. */
  loadHiddenSession(contextLen: number): { plan: Plan; session: Session; maxTokens: number } {
    const maxTokens = this.#options.maxTokensPerStep;
    const options = { ...this.#options, contextLen, maxSequences: 1, maxOutputsPerStep: maxTokens };
    const plan = this.file.buildPlan("hidden", options.slidingWindow);
    return { plan, session: this.#load(plan, this.#planMemory(plan, options)), maxTokens };
  }

  #facts(path: string, loadMs: number): LoadedModelFacts {
    const { config } = this.file;
    const { memory, maxContextLen, numThreads, limits } = this.memoryPlan;
    return {
      path,
      architecture: config.architecture,
      name: config.name,
      mainType: this.file.mainType,
      backend: selectBackend(this.#options.backend).name,
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

function checkOptions(options: ModelOptions): void {
  const counts = {
    "--threads": options.numThreads ?? 1,
    "--ctx": options.contextLen ?? 1,
    "--parallel": options.maxSequences,
  };
  for (const [flag, value] of Object.entries(counts)) {
    if (Number.isInteger(value) && value > 0 && value <= 1 << 28) continue;
    throw new TinferError("usage", `${flag} is ${value}, wanted a whole number above 0`);
  }
}
