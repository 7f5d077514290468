// A model that is loaded: its file, its adapters, its plan and the session that runs it. Owns all
// of them and releases them in reverse order.
import type { Backend, Session } from "../backend/backend.ts";
import { defaultTuning, interleavedTuning, type Tuning } from "../backend/tuning.ts";
import { assert } from "../core/errors.ts";
import { stretchOf } from "../models/rope.ts";
import { cpuReport } from "../native/cpu-report.ts";
import type { CancelWord } from "../native/interrupt.ts";
import { interleaveMemory } from "../native/memory.ts";
import type { Plan, PlanOutputs } from "../plan/builder.ts";
import type { AdapterChoice } from "./adapter-choice.ts";
import { AdapterSet } from "./adapter-set.ts";
import type { LoadedModelFacts } from "./client.ts";
import type { HiddenSession } from "./hidden-states.ts";
import { availableMemoryBytes, memoryNodes } from "./machine.ts";
import { type MemoryPlan, sessionBytes } from "./memory-plan.ts";
import { type CopyOptions, type LoadProgress, ModelFile } from "./model-file.ts";
import {
  interleavedTensors,
  type PlannedModel,
  planHidden,
  planModel,
  positionLimit,
  rowTables,
} from "./model-plan.ts";
import type { LoadMode, ModelOptions } from "./options.ts";
import { machineKey, readTuning, type TuningKey, writeTuning } from "./tuning-file.ts";
import { TuningProbe } from "./tuning-probe.ts";
import { crossoverOf, type MeasureStep, searchTuning } from "./tuning-search.ts";

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
  #adapters: AdapterSet;
  #planned: PlannedModel;
  #session: Session;
  #facts: LoadedModelFacts;
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
    this.#adapters = cleanup.use(new AdapterSet(options.adapters, this.file));
    const { adapters } = this.#adapters;
    const outputs = loading.outputs ?? this.file.outputs;
    this.#planned = planModel(this.file, outputs, options, { adapters });
    this.#backend = this.#planned.backend;
    // Plans of other sessions, of the same family and file, take the same parts of tensors.
    this.file.interleave(interleavedTensors(this.plan, this.file, this.#backend));
    this.#findKnownTuning();
    this.#session = cleanup.use(this.#load(this.#planned));
    if (loading.weights !== "later") for (const _ of this.bringIn());
    cleanup.move();
    this.#facts = this.#makeFacts(path, performance.now() - start);
  }

  get plan(): Plan {
    return this.#planned.plan;
  }
  get memoryPlan(): MemoryPlan {
    return this.#planned.memoryPlan;
  }
  get session(): Session {
    return this.#session;
  }
  get facts(): LoadedModelFacts {
    return this.#facts;
  }
  get adapters(): AdapterSet {
    return this.#adapters;
  }

  /**
   * Takes these adapters instead of those there are. The same files with other scales need
   * nothing else; other files make a new plan and session, and the KV pool starts empty: true.
   * The weights stay where they are. Throws, and leaves all as it was.
   */
  setAdapters(choices: readonly AdapterChoice[]): boolean {
    const isSame = this.#adapters.hasFiles(choices);
    if (isSame) this.#adapters.rescale(choices);
    else this.#replaceAdapters(choices);
    this.#useScales(this.#session);
    this.#facts = this.#makeFacts(this.#facts.path, this.#facts.loadMs);
    return !isSame;
  }

  #replaceAdapters(choices: readonly AdapterChoice[]): void {
    using cleanup = new DisposableStack();
    const adapters = cleanup.use(new AdapterSet(choices, this.file));
    const { memory, maxContextLen: contextLen } = this.memoryPlan;
    const freedBytes = sessionBytes(memory);
    const surroundings = { adapters: adapters.adapters, freedBytes };
    const options = { ...this.#options, contextLen };
    const outputs = this.plan.hidden === undefined ? "tokens" : "hidden";
    const planned = planModel(this.file, outputs, options, surroundings);
    if (options.lock) adapters.lock();
    const old = { adapters: this.#adapters, planned: this.#planned };
    // Two KV pools at once would not fit where one does.
    this.release(this.#session);
    try {
      this.#adapters = adapters;
      this.#planned = planned;
      this.#session = this.#load(planned);
    } catch (error) {
      this.#adapters = old.adapters;
      this.#planned = old.planned;
      this.#session = this.#load(old.planned);
      throw error;
    }
    cleanup.move();
    old.adapters[Symbol.dispose]();
  }

  /** Brings the weights into memory as the options say, in steps of some milliseconds. */
  *bringIn(): Generator<LoadProgress> {
    yield* this.file.derive(this.memoryPlan.numThreads);
    yield* this.bringInAs(this.#options.load);
    this.#assertWeightsAsPlanned();
    if (!this.#options.lock) return;
    this.file.lock();
    this.#adapters.lock();
  }

  #assertWeightsAsPlanned(): void {
    const { derivedBytes, fileBytes } = this.#planned.weights;
    const { copiedBytes, madeBytes } = this.file;
    assert(madeBytes === derivedBytes, `weights: ${madeBytes} made, ${derivedBytes} planned`);
    if (this.#options.load !== "eager") return;
    assert(copiedBytes === fileBytes, `weights: ${copiedBytes} copied, ${fileBytes} planned`);
  }

  /** The same while the model runs: between two steps of it, a step of this. */
  *bringInAs(mode: LoadMode): Generator<LoadProgress> {
    if (mode === "auto") yield* this.file.populate(rowTables(this.plan));
    if (mode === "eager") yield* this.copyWeights();
  }

  /**
   * Where two copies have room: what products read is copied, unless it lies on huge pages already
   * and stays in rows.
   */
  *promote(numThreads?: number): Generator<LoadProgress> {
    const { file, plan } = this;
    if ((file.copyBytes - file.copiedBytes) * 2 > availableMemoryBytes()) return;
    if (!file.interleavesCopies && file.isOnHugePages) return;
    yield* this.copyWeights(numThreads, { tables: rowTables(plan) });
  }

  /** Copies the weights, or the rest of them, into huge pages. */
  *copyWeights(
    numThreads = this.memoryPlan.numThreads,
    options?: CopyOptions,
  ): Generator<LoadProgress> {
    for (const progress of this.file.copy(numThreads, options)) {
      this.#moveWeights();
      yield progress;
    }
    this.#findKnownTuning();
  }

  /** Back to the mapped file; the memory of the copies is free afterwards. */
  dropCopies(): void {
    using _ = this.file.takeCopies();
    this.#moveWeights();
    this.#findKnownTuning();
  }

  #moveWeights(): void {
    for (const session of this.#sessions) session.moveWeights();
  }

  #load({ backend, plan, memoryPlan }: PlannedModel): Session {
    const { limits, layout, numThreads } = memoryPlan;
    const { cpuVariant, cpus } = this.#options;
    const cancelWord = this.#cancelWord;
    const weights = this.#adapters.memory(this.file);
    const options = { limits, weights, numThreads, cpuVariant, cpus, cancelWord };
    const session = backend.load(plan, layout, options);
    this.#useScales(session);
    if (this.#tuning !== undefined) session.tune(this.#tuning);
    this.#sessions.push(session);
    return session;
  }

  /** What steps get that set no scales of their own. */
  #useScales({ stepData }: Session): void {
    stepData.setAdapterScales(0, stepData.tokenIds.length, this.#adapters.ownScales);
  }

  /** Ends a session of this model. */
  release(session: Session): void {
    this.#sessions.splice(this.#sessions.indexOf(session), 1);
    session[Symbol.dispose]();
  }

  get #tuningKey(): TuningKey {
    const cpuVariant = this.#options.cpuVariant ?? cpuReport().bestVariant;
    const { numThreads } = this.memoryPlan;
    const { mainType: weightType, hasInterleaved: interleaved } = this.file;
    return { ...machineKey(), cpuVariant, numThreads, weightType, interleaved };
  }

  /** What is used until something is found. */
  get #startTuning(): Tuning {
    return this.file.hasInterleaved ? interleavedTuning : defaultTuning;
  }

  /** What was found for the weights as they lie now. */
  #findKnownTuning(): void {
    this.#tuning = this.#options.tuning ? readTuning(this.#tuningKey) : undefined;
    for (const session of this.#sessions) session.tune(this.#tuning ?? this.#startTuning);
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
    this.#tuning = this.#startTuning;
    // Adapters may go in a pause, and what is found for the model serves them too.
    const { numThreads } = this.memoryPlan;
    const options = { weights: this.file, numThreads, cpuVariant: this.#options.cpuVariant };
    using probe = new TuningProbe(this.#planWithoutAdapters(), this.#backend, options);
    if (probe.sessions.length === 0) return;
    // Weights may move in a pause.
    this.#sessions.push(...probe.sessions);
    try {
      const measure: MeasureStep = (tuning, numRows) => probe.stepMs(tuning, numRows);
      this.#tuning = yield* searchTuning(
        measure,
        crossoverOf(this.file.mainType),
        this.#startTuning,
      );
    } finally {
      this.#sessions.splice(this.#sessions.indexOf(probe.sessions[0]!), probe.sessions.length);
    }
    for (const session of this.#sessions) session.tune(this.#tuning);
    writeTuning(this.#tuningKey, this.#tuning);
  }

  #planWithoutAdapters(): Plan {
    if (this.#adapters.choices.length === 0) return this.plan;
    // Nothing is taken for it.
    const freedBytes = Number.POSITIVE_INFINITY;
    return planModel(this.file, this.file.outputs, this.#options, { freedBytes }).plan;
  }

  /**
   * A session that ends in the hidden state of every token: the model's own where it does, else a
   * further one of the same weights, which is the caller's.
   */
  hiddenSession(contextLen: number): HiddenSession {
    const { plan, session, memoryPlan } = this;
    if (plan.hidden !== undefined) return { plan, session, ownBytes: 0, ...memoryPlan.limits };
    const { adapters } = this.#adapters;
    const planned = planHidden(this.file, this.#options, contextLen, { adapters });
    const { limits, memory } = planned.memoryPlan;
    const ownBytes = sessionBytes(memory);
    return { plan: planned.plan, session: this.#load(planned), ownBytes, ...limits };
  }

  #makeFacts(path: string, loadMs: number): LoadedModelFacts {
    const { config } = this.file;
    const { memory, maxContextLen, numThreads, limits } = this.memoryPlan;
    return {
      path,
      architecture: config.architecture,
      isEncoder: this.file.isEncoder,
      pooling: config.pooling,
      name: config.name,
      mainType: this.file.mainType,
      backend: this.#backend.name,
      cpuVariant: this.#options.cpuVariant ?? cpuReport().bestVariant,
      numThreads,
      parameters: this.file.numParameters,
      maxContextLen,
      trainedContextLen: config.contextLen,
      scaledContextLen: config.scaledContextLen,
      ropeFactor: stretchOf(config.ropeScaling),
      positionLimit: positionLimit(this.plan),
      vocabSize: config.vocabSize,
      hiddenSize: config.hiddenSize,
      maxSequences: limits.maxSequences,
      maxTokensPerStep: limits.maxTokens,
      weightBytes: this.file.weightBytes + this.#adapters.bytes,
      mappedWeightBytes: this.file.mappedBytes + this.#adapters.mappedBytes,
      derivedWeightBytes: this.file.derivedBytes,
      ...memory,
      loadMs,
      adapters: this.#adapters.choices,
    };
  }

  [Symbol.dispose](): void {
    this.#sessions.length = 0;
    this.#session[Symbol.dispose]();
    this.#adapters[Symbol.dispose]();
    this.file[Symbol.dispose]();
  }
}
