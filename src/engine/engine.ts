// The engine: takes requests, runs the step loop schedule → run → sample → commit → emit, and
// hands out token events. Lives on one thread and yields to it between steps.
import { assert, TinferError } from "../core/errors.ts";
import { checkSampling } from "../sampling/parameters.ts";
import type { AdapterChoice, AdapterScale } from "./adapter-choice.ts";
import { Batch } from "./batch.ts";
import { BlockAllocator } from "./block-allocator.ts";
import { CacheRoots } from "./cache-roots.ts";
import {
  type EndReason,
  type EngineClient,
  type EngineStatus,
  type GenerationEvent,
  type GenerationRequest,
  hasEnough,
  type LoadedModelFacts,
  type WeightChange,
} from "./client.ts";
import { checkPrompt } from "./context-limits.ts";
import { type ExpertUse, expertUse } from "./expert-use.ts";
import { LoadedModel, type Loading } from "./loaded-model.ts";
import { type LoadProgress, requireDecoder } from "./model-file.ts";
import { ModelParts } from "./model-parts.ts";
import type { LoadMode, ModelOptions } from "./options.ts";
import type { Pooling } from "./pooling.ts";
import { RequestState } from "./request-state.ts";
import { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import { inTurns, Queue, type Watch } from "./turns.ts";
import { changeWeightType, ownWeights, TemporaryModel } from "./weight-type.ts";

export class Engine implements EngineClient {
  /** Of a load by steps; else the model's. */
  #loadMs: number | undefined;
  #parts: ModelParts;
  readonly #path: string;
  readonly #options: ModelOptions;
  readonly #loading: Loading;
  /** The weights' way to another type, while it lasts. */
  #weightChange: WeightChange | undefined;
  #weightWork: Promise<void> = Promise.resolve();
  /** What needs the session for hidden states, or gives the model another session. */
  readonly #exclusive = new Queue();
  #numEmbedding = 0;
  readonly #closing = new AbortController();
  readonly #allocator: BlockAllocator;
  readonly #scheduler: Scheduler;
  readonly #batch = new Batch();
  readonly #requests = new Map<Sequence, RequestState>();
  readonly #totals = { prompt: 0, cached: 0, generated: 0, cancelled: 0, steps: 0 };
  readonly #cacheRoots = new CacheRoots();
  #nextId = 1;
  #looping = false;
  #idleSince: number | undefined = performance.now();

  /** Loads a model without holding the thread for long: signals and progress get their turn. */
  static async open(
    path: string,
    options: ModelOptions,
    watch: Watch<LoadProgress>,
  ): Promise<Engine> {
    const start = performance.now();
    const engine = new Engine(path, options, { weights: "later" });
    try {
      await inTurns(engine.#parts.model.bringIn(), watch);
    } catch (error) {
      await engine[Symbol.asyncDispose]();
      throw error;
    }
    engine.#parts.residency.start();
    engine.#loadMs = performance.now() - start;
    return engine;
  }

  constructor(path: string, options: ModelOptions, loading: Loading = {}) {
    this.#path = path;
    this.#options = options;
    this.#loading = loading;
    this.#parts = this.#makeParts(new LoadedModel(path, options, loading), options.load);
    const { limits } = this.#parts.model.memoryPlan;
    this.#allocator = new BlockAllocator(limits.numBlocks);
    const { maxTokens: maxTokensPerStep, maxSequences } = limits;
    this.#scheduler = new Scheduler({ maxTokensPerStep, maxSequences }, this.#allocator);
    if (loading.weights !== "later") this.#parts.residency.start();
  }

  #makeParts(model: LoadedModel, load: LoadMode): ModelParts {
    return new ModelParts(model, { load, lock: this.#options.lock }, () => this.#idleSince);
  }

  /** Work has come or ended. */
  #noteWork(): void {
    // One that is closed must not begin to tune.
    const isBusy = this.#looping || this.#numEmbedding > 0 || this.#closing.signal.aborted;
    this.#idleSince = isBusy ? undefined : performance.now();
    if (isBusy) this.#parts.tuner.busy();
    else this.#parts.tuner.idle();
  }

  #requireOpen(): void {
    if (this.#closing.signal.aborted) throw new TinferError("cancelled", "the model was closed");
  }

  get facts(): LoadedModelFacts {
    const { facts } = this.#parts.model;
    return { ...facts, path: this.#path, loadMs: this.#loadMs ?? facts.loadMs };
  }

  /** `cancelId`: what stops this request's step in the engine's cancel word; 0: nothing does. */
  async *generate(
    request: GenerationRequest,
    signal?: AbortSignal,
    cancelId = 0,
  ): AsyncIterableIterator<GenerationEvent> {
    const state = this.#admit(request, cancelId);
    const abort = () => this.#cancel(state, signal?.reason);
    signal?.addEventListener("abort", abort);
    try {
      if (signal?.aborted) abort();
      for (;;) {
        const events = await state.take();
        for (const event of events) {
          yield event;
          if (event.kind === "end") return;
        }
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      this.#cancel(state);
    }
  }

  #admit(request: GenerationRequest, cancelId: number): RequestState {
    const { promptTokenIds, sampling, adapters } = request;
    this.#requireOpen();
    requireDecoder(this.facts);
    checkPrompt(promptTokenIds, this.facts);
    checkSampling(sampling, this.facts.vocabSize);
    const { maxWaiting } = this.#options;
    if (this.#scheduler.waiting.length >= maxWaiting) {
      throw new TinferError("overloaded", `${maxWaiting} requests are waiting already`, {
        hint: "try again later, or raise --parallel",
      });
    }
    const adapted = this.#cacheRoots.adapted(this.#parts.model.adapters, adapters);
    const { maxContextLen } = this.facts;
    const state = new RequestState(this.#nextId++, request, maxContextLen, cancelId, adapted);
    this.#requests.set(state.sequence, state);
    this.#scheduler.add(state.sequence);
    this.#start();
    return state;
  }

  #cancel(state: RequestState, reason?: unknown): void {
    if (!this.#requests.delete(state.sequence)) return;
    if (reason !== hasEnough) this.#totals.cancelled++;
    this.#scheduler.remove(state.sequence);
    state.end("cancelled");
  }

  /** Runs the loop until no work is left. */
  #start(): void {
    if (this.#looping) return;
    this.#looping = true;
    this.#noteWork();
    setImmediate(() => this.#loop());
  }

  #loop(): void {
    try {
      if (this.#scheduler.hasWork) this.#step();
    } catch (error) {
      for (const state of this.#requests.values()) state.fail(error);
      for (const sequence of [...this.#requests.keys()]) this.#scheduler.remove(sequence);
      this.#requests.clear();
    }
    this.#looping = this.#scheduler.hasWork;
    this.#noteWork();
    // Between steps the thread's other work runs: new requests, cancellations.
    if (this.#looping) setImmediate(() => this.#loop());
  }

  #step(): void {
    const batch = this.#batch;
    this.#scheduler.schedule(batch);
    if (batch.numTokens === 0) {
      throw new TinferError("outOfMemory", "no KV block is left for any sequence", {
        hint: "use a larger context (--ctx) or fewer sequences (--parallel)",
      });
    }
    for (const sequence of batch.sequences) this.#requests.get(sequence)?.markScheduled();
    // A cancelled step has no results: what is left of its sequences runs again.
    if (!this.#parts.runner.run(batch, this.#cancelIdOf(batch))) return;
    this.#totals.steps++;
    this.#commit(batch);
  }

  /** The request whose end makes the step worthless: the one that most of its tokens are for. */
  #cancelIdOf({ sequences, counts, numTokens }: Batch): number {
    for (let s = 0; s < sequences.length; s++) {
      if (counts[s]! * 2 > numTokens) return this.#requests.get(sequences[s]!)!.cancelId;
    }
    return 0;
  }

  /** Appends the sampled tokens, seals full blocks, ends finished requests. */
  #commit(batch: Batch): void {
    let row = 0;
    for (let s = 0; s < batch.sequences.length; s++) {
      const sequence = batch.sequences[s]!;
      const state = this.#requests.get(sequence)!;
      const yields = batch.yieldsToken(s);
      sequence.commit(batch.counts[s]!, this.#allocator);
      if (!yields) {
        state.emitPromptProgress();
        continue;
      }
      if (sequence.completionLen === 0) this.#countPrompt(sequence);
      this.#totals.generated++;
      this.#acceptToken(state, row++);
    }
  }

  /** Takes the token of an output row; an error of this row ends this request and no other. */
  #acceptToken(state: RequestState, row: number): void {
    const { sequence } = state;
    let reason: EndReason | undefined;
    let failure: unknown;
    try {
      reason = state.acceptToken(this.#parts.model.session.stepData, row);
    } catch (error) {
      failure = error;
    }
    if (reason === undefined && failure === undefined) return;
    this.#requests.delete(sequence);
    this.#scheduler.remove(sequence);
    if (reason === undefined) state.fail(failure);
    else state.end(reason);
  }

  #countPrompt(sequence: Sequence): void {
    this.#totals.prompt += sequence.promptLen;
    this.#totals.cached += sequence.numCached;
  }

  /** `cancelId` as in `generate`. */
  async embed(
    prompts: readonly Int32Array[],
    pooling: Pooling,
    adapters?: readonly AdapterScale[],
    signal?: AbortSignal,
    cancelId = 0,
  ): Promise<Float32Array[]> {
    for (const tokenIds of prompts) checkPrompt(tokenIds, this.facts, "read");
    this.#numEmbedding++;
    this.#noteWork();
    try {
      return await this.#exclusive.run(() => {
        const { model, hidden } = this.#parts;
        const { scales } = this.#cacheRoots.adapted(model.adapters, adapters);
        const work = hidden.pooled(prompts, pooling, scales, cancelId);
        return this.#betweenSteps(work, { signal });
      });
    } finally {
      this.#numEmbedding--;
      this.#noteWork();
    }
  }

  setAdapters(adapters: readonly AdapterChoice[]): Promise<void> {
    return this.#exclusive.run(() => this.#exchangeAdapters(adapters));
  }

  #exchangeAdapters(adapters: readonly AdapterChoice[]): void {
    this.#requireOpen();
    const isRunning = this.#requests.size > 0;
    const isSame = this.#parts.model.adapters.hasFiles(adapters);
    if (isRunning && !isSame) {
      throw new TinferError("overloaded", "adapters are not exchanged while answers are written", {
        hint: "try again after them",
      });
    }
    if (!isSame) this.#parts.hidden[Symbol.dispose]();
    if (!this.#parts.model.setAdapters(adapters)) return;
    this.#parts.renewRunner();
    this.#allocator.clear();
  }

  setLoadMode(mode: LoadMode): Promise<void> {
    return this.#parts.residency.change(mode);
  }

  /**
   * Computes with the weights in the types of a mix, or the file's own, from some later step on.
   * What is being generated goes on; its tokens so far are computed again with the new weights.
   */
  async setWeightType(name: string, signal?: AbortSignal): Promise<void> {
    if (this.#weightChange !== undefined) {
      throw new TinferError("overloaded", "the weights are on their way to another type", {
        hint: "wait until that is done",
      });
    }
    this.#weightWork = this.#changeWeights(name, signal);
    return this.#weightWork;
  }

  async #changeWeights(name: string, signal: AbortSignal | undefined): Promise<void> {
    this.#weightChange = { type: name, doneBytes: 0, totalBytes: 0 };
    try {
      using temporary = name === ownWeights ? undefined : new TemporaryModel();
      if (temporary !== undefined) {
        const { numThreads } = this.facts;
        const steps = changeWeightType(this.#path, name, temporary.path, numThreads);
        const onProgress = (progress: LoadProgress) => {
          this.#weightChange = { type: name, ...progress };
        };
        await this.#betweenSteps(steps, { signal, onProgress });
      }
      await this.#replaceModel(temporary?.path ?? this.#path, { signal });
    } finally {
      this.#weightChange = undefined;
    }
  }

  /** Runs work in turns with the engine's steps; ends by throwing when the engine closes, too. */
  #betweenSteps<P, R>(work: Generator<P, R>, { signal, onProgress }: Watch<P>): Promise<R> {
    const { signal: closed } = this.#closing;
    const either = signal === undefined ? closed : AbortSignal.any([signal, closed]);
    return inTurns(work, { signal: either, onProgress });
  }

  async #replaceModel(path: string, watch: Watch<LoadProgress>): Promise<void> {
    const { limits } = this.#parts.model.memoryPlan;
    const { kvTypeK, kvTypeV, numBlocks } = limits;
    const { mode: load } = this.#parts.residency;
    const { choices: adapters } = this.#parts.model.adapters;
    const contextLen = this.facts.maxContextLen;
    // The new file has its types already, and the first one its own.
    const quantize = undefined;
    const options = { ...this.#options, contextLen, kvTypeK, kvTypeV, load, adapters, quantize };
    using cleanup = new DisposableStack();
    const loading: Loading = { ...this.#loading, weights: "later" };
    const model = cleanup.use(new LoadedModel(path, options, loading));
    await this.#betweenSteps(model.bringIn(), watch);
    assert(model.memoryPlan.limits.numBlocks === numBlocks, "the KV pool stays as large");
    const mode = await this.#exclusive.run(() => {
      this.#requireOpen();
      // What was asked for meanwhile holds.
      model.setAdapters(this.#parts.model.adapters.choices);
      const { mode } = this.#parts.residency;
      cleanup.move();
      // Keys and values of the old weights are not those of the new.
      this.#scheduler.preemptAll();
      this.#allocator.clear();
      this.#parts[Symbol.dispose]();
      this.#parts = this.#makeParts(model, load);
      return mode;
    });
    if (mode === load) this.#parts.residency.start();
    else await this.#parts.residency.change(mode);
  }

  async status(): Promise<EngineStatus> {
    const { numBlocks, numFree, numCached } = this.#allocator;
    return {
      running: this.#scheduler.running.length,
      waiting: this.#scheduler.waiting.length,
      kvBlocks: numBlocks,
      usedKvBlocks: numBlocks - numFree - numCached,
      cachedKvBlocks: numCached,
      promptTokensTotal: this.#totals.prompt,
      cachedPromptTokensTotal: this.#totals.cached,
      generatedTokensTotal: this.#totals.generated,
      preemptionsTotal: this.#scheduler.numPreemptions,
      cancelledTotal: this.#totals.cancelled,
      stepsTotal: this.#totals.steps,
      loadMode: this.#parts.residency.mode,
      copiedWeightBytes: this.#parts.model.file.copiedBytes,
      embeddingBytes: this.#parts.hidden.bytes,
      weightChange: this.#weightChange,
    };
  }

  async expertUse(): Promise<ExpertUse | undefined> {
    const { plan, session } = this.#parts.model;
    return expertUse(plan, session.expertCounts);
  }

  /** Throws unless every KV block is accounted for. */
  checkIntegrity(): void {
    this.#allocator.checkIntegrity();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const state of [...this.#requests.values()]) this.#cancel(state);
    this.#closing.abort();
    await this.#weightWork.catch(() => {});
    await this.#exclusive.run(() => this.#parts[Symbol.dispose]());
  }
}
