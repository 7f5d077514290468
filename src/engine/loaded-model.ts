// A model that is loaded: its file, its plan and the session that runs it. Owns all of them and
// releases them in reverse order.
import type { Backend, Session } from "../backend/backend.ts";
import { defaultTuning, type Tuning } from "../backend/tuning.ts";
import { ropeFactor } from "../models/rope-options.ts";
import { cpuReport } from "../native/cpu-report.ts";
import type { CancelWord } from "../native/interrupt.ts";
import { interleaveMemory } from "../native/memory.ts";
import type { Plan, PlanOutputs } from "../plan/builder.ts";
import type { LoadedModelFacts } from "./client.ts";
import type { HiddenSession } from "./hidden-states.ts";
import { memoryNodes } from "./machine.ts";
import type { MemoryPlan } from "./memory-plan.ts";
import { type LoadProgress, ModelFile } from "./model-file.ts";
import { type PlannedModel, planModel, positionLimit } from "./model-plan.ts";
import type { LoadMode, ModelOptions } from "./options.ts";
import { machineKey, readTuning, type TuningKey, writeTuning } from "./tuning-file.ts";
import { productsPlan, TuningProbe } from "./tuning-probe.ts";
import { searchTuning } from "./tuning-search.ts";

export interface Loading {
  /** With "later", the caller brings the weights in by `bringIn`. */
  readonly weights?: "now" | "later";
  /** What the model's session ends in; default: tokens, or hidden states of an encoder. */
  readonly outputs?: PlanOutputs;
  /** What stops the model's steps from other threads. */
  readonly cancelWord?: CancelWord;
}

export class LoadedModel implements Disposable {
  readonly file: ModelFile;
  readonly plan: Plan;
  readonly memoryPlan: MemoryPlan;
  readonly session: Session;
  readonly facts: LoadedModelFacts;
  readonly #options: ModelOptions;
  readonly #cancelWord: CancelWord | undefined;
  readonly #backend: Backend;
  /** Found on this machine before, or by `findTuning`; undefined = defaults. */
  #tuning: Tuning | undefined;
  /** All sessions that read the weights. */
  readonly #sessions: Session[] = [];

  constructor(path: string, options: ModelOptions, loading: Loading = {}) {
    const start = performance.now();
    this.#options = options;
    this.#cancelWord = loading.cancelWord;
    using cleanup = new DisposableStack();
    const nodes = options.numa ? memoryNodes() : [];
    // Before anything is taken and any thread is started.
    if (nodes.length > 1) interleaveMemory(nodes);
    this.file = cleanup.use(new ModelFile(path, options.rope, options.quantize));
    const planned = planModel(this.file, loading.outputs ?? this.file.outputs, options);
    this.plan = planned.plan;
    this.memoryPlan = planned.memoryPlan;
    this.#backend = planned.backend;
    this.#tuning = options.tuning ? readTuning(this.#tuningKey) : undefined;
    this.session = cleanup.use(this.#load(planned));
    if (loading.weights !== "later") for (const _ of this.bringIn());
    cleanup.move();
    this.facts = this.#facts(path, planned.backend.name, performance.now() - start);
  }

  /** Brings the weights into memory as the options say, in steps of some milliseconds. */
  *bringIn(): Generator<LoadProgress> {
    yield* this.file.derive(this.memoryPlan.numThreads);
    yield* this.bringInAs(this.#options.load);
    if (this.#options.lock) this.file.lock();
  }

  /** The same while the model runs: between two steps of it, a step of this. */
  *bringInAs(mode: LoadMode): Generator<LoadProgress> {
    if (mode === "auto") yield* this.file.populate();
    if (mode === "eager") yield* this.copyWeights();
  }

  /** Copies the weights, or the rest of them, into huge pages, `pieceBytes` a step. */
  *copyWeights(
    numThreads = this.memoryPlan.numThreads,
    pieceBytes?: number,
  ): Generator<LoadProgress> {
    for (const progress of this.file.copy(numThreads, pieceBytes)) {
      this.#moveWeights();
      yield progress;
    }
  }

  /** Back to the mapped file; the memory of the copies is free afterwards. */
  dropCopies(): void {
    using _ = this.file.takeCopies();
    this.#moveWeights();
  }

  #moveWeights(): void {
    for (const session of this.#sessions) session.moveWeights();
  }

  #load({ backend, plan, memoryPlan }: PlannedModel): Session {
    const { limits, layout, numThreads } = memoryPlan;
    const { cpuVariant, cpus } = this.#options;
    const cancelWord = this.#cancelWord;
    const options = { limits, weights: this.file, numThreads, cpuVariant, cpus, cancelWord };
    const session = backend.load(plan, layout, options);
    if (this.#tuning !== undefined) session.tune(this.#tuning);
    this.#sessions.push(session);
    return session;
  }

  get #tuningKey(): TuningKey {
    const cpuVariant = this.#options.cpuVariant ?? cpuReport().bestVariant;
    const { numThreads } = this.memoryPlan;
    return { ...machineKey(), cpuVariant, numThreads, weightType: this.file.mainType };
  }

  /** Whether a tuning is wanted, can matter, and nobody looked for it yet. */
  get lacksTuning(): boolean {
    return this.#options.tuning && this.#backend.name === "cpu" && this.#tuning === undefined;
  }

  /**
   * Finds a tuning, uses it from then on, and keeps it for later starts; about a second, in steps
   * of some milliseconds that may have pauses in between.
   */
  *findTuning(): Generator<void> {
    this.#tuning = defaultTuning;
    const plan = productsPlan(this.plan, this.file);
    if (plan === undefined) return;
    const { numThreads } = this.memoryPlan;
    const options = { weights: this.file, numThreads, cpuVariant: this.#options.cpuVariant };
    using probe = new TuningProbe(plan, this.#backend, options);
    // Weights may move in a pause.
    this.#sessions.push(probe.session);
    try {
      this.#tuning = yield* searchTuning((tuning, numRows) => probe.stepMs(tuning, numRows));
    } finally {
      this.#sessions.splice(this.#sessions.indexOf(probe.session), 1);
    }
    for (const session of this.#sessions) session.tune(this.#tuning);
    writeTuning(this.#tuningKey, this.#tuning);
  }

  /**
   * A session that ends in the hidden state of every token: the model's own where it does, else a
   * further one of the same weights, which is the caller's.
   */
  hiddenSession(contextLen: number): HiddenSession {
    const { plan, session, memoryPlan } = this;
    if (plan.hidden !== undefined) return { plan, session, ...memoryPlan.limits };
    const options = { ...this.#options, contextLen, maxSequences: 1 };
    const planned = planModel(this.file, "hidden", options);
    return { plan: planned.plan, session: this.#load(planned), ...planned.memoryPlan.limits };
  }

  #facts(path: string, backend: string, loadMs: number): LoadedModelFacts {
    const { config } = this.file;
    const { memory, maxContextLen, numThreads, limits } = this.memoryPlan;
    return {
      path,
      architecture: config.architecture,
      isEncoder: this.file.isEncoder,
      pooling: config.pooling,
      name: config.name,
      mainType: this.file.mainType,
      backend,
      cpuVariant: this.#options.cpuVariant ?? cpuReport().bestVariant,
      numThreads,
      parameters: this.file.numParameters,
      maxContextLen,
      trainedContextLen: config.contextLen,
      scaledContextLen: config.scaledContextLen,
      ropeFactor: ropeFactor(config),
      positionLimit: positionLimit(this.plan),
      vocabSize: config.vocabSize,
      hiddenSize: config.hiddenSize,
      maxSequences: limits.maxSequences,
      maxTokensPerStep: limits.maxTokens,
      weightBytes: this.file.weightBytes,
      ...memory,
      loadMs,
    };
  }

  [Symbol.dispose](): void {
    this.#sessions.length = 0;
    this.session[Symbol.dispose]();
    this.file[Symbol.dispose]();
  }
}
