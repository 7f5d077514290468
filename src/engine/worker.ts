// The engine on its own thread: `startEngineWorker` is the main thread's side, the code at the
// end is the Worker's. A compiled binary starts itself again as the Worker, hence one file.
import { TinferError } from "../core/errors.ts";
import { type CancelWord, makeCancelWord, stopAllSteps, stopStep } from "../native/interrupt.ts";
import type { AdapterChoice, AdapterScale } from "./adapter-choice.ts";
import {
  type EngineClient,
  type EngineStatus,
  type GenerationEvent,
  type GenerationRequest,
  hasEnough,
  type LoadedModelFacts,
} from "./client.ts";
import { Engine } from "./engine.ts";
import type { ExpertUse } from "./expert-use.ts";
import type { LoadMode, ModelOptions } from "./options.ts";
import type { Pooling } from "./pooling.ts";
import {
  type EngineResult,
  errorFromMessage,
  errorToMessage,
  type FromEngine,
  type ToEngine,
} from "./worker-messages.ts";

/** Where replies to one id go. */
interface Receiver {
  event(event: GenerationEvent): void;
  result(value: EngineResult): void;
  failed(error: Error): void;
}

/** Starts a Worker that loads the model; rejects with the loader's error. */
export function startEngineWorker(path: string, options: ModelOptions): Promise<EngineClient> {
  const worker = new Worker(import.meta.url);
  const cancelWord = makeCancelWord();
  return new Promise((resolve, reject) => {
    worker.onerror = (event) => reject(new Error(`engine thread: ${event.message}`));
    worker.onmessage = ({ data: message }: MessageEvent<FromEngine>) => {
      if (message.kind === "loaded") resolve(new WorkerClient(worker, message.facts, cancelWord));
      else if (message.kind === "failed") {
        worker.terminate();
        reject(errorFromMessage(message.error));
      }
    };
    worker.postMessage({ kind: "load", path, options, cancelWord } satisfies ToEngine);
  });
}

class WorkerClient implements EngineClient {
  #facts: LoadedModelFacts;
  readonly #worker: Worker;
  /** Shared with the engine's steps, which end as soon as their request's id is here. */
  readonly #cancelWord: CancelWord;
  readonly #receivers = new Map<number, Receiver>();
  /** Why the engine thread ended, if it did by itself. */
  #failure: Error | undefined;
  #nextId = 1;

  constructor(worker: Worker, facts: LoadedModelFacts, cancelWord: CancelWord) {
    this.#cancelWord = cancelWord;
    this.#facts = facts;
    this.#worker = worker;
    worker.onmessage = ({ data: message }: MessageEvent<FromEngine>) => {
      if (message.kind === "loaded") return;
      const receiver = this.#receivers.get(message.id);
      if (message.kind === "event") receiver?.event(message.event);
      else if (message.kind === "result") receiver?.result(message.value);
      else receiver?.failed(errorFromMessage(message.error));
    };
    worker.onerror = (event) => {
      this.#failure = new TinferError("native", `the engine thread stopped: ${event.message}`);
      for (const receiver of this.#receivers.values()) receiver.failed(this.#failure);
    };
  }

  get facts(): LoadedModelFacts {
    return this.#facts;
  }

  #send(message: ToEngine): void {
    if (this.#failure === undefined) this.#worker.postMessage(message);
    else if (message.kind !== "cancel") throw this.#failure;
  }

  async *generate(
    request: GenerationRequest,
    signal?: AbortSignal,
  ): AsyncIterableIterator<GenerationEvent> {
    const id = this.#nextId++;
    let queue: GenerationEvent[] = [];
    let failure: Error | undefined;
    let wake = () => {};
    this.#receivers.set(id, {
      event(event) {
        queue.push(event);
        wake();
      },
      result() {},
      failed(error) {
        failure = error;
        wake();
      },
    });
    const cancel = () => this.#cancel(id, signal?.reason);
    let ended = false;
    signal?.addEventListener("abort", cancel);
    try {
      this.#send({ kind: "generate", id, request });
      if (signal?.aborted) cancel();
      for (;;) {
        if (queue.length === 0 && failure === undefined) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        const events = queue;
        queue = [];
        for (const event of events) {
          ended ||= event.kind === "end";
          yield event;
          if (event.kind === "end") return;
        }
        if (failure !== undefined) {
          ended = true;
          throw failure;
        }
      }
    } finally {
      signal?.removeEventListener("abort", cancel);
      if (!ended) cancel();
      this.#receivers.delete(id);
    }
  }

  /** Stops the work with this id within one step. */
  #cancel(id: number, why?: unknown): void {
    const reason = why === hasEnough ? hasEnough : undefined;
    this.#send({ kind: "cancel", id, reason });
    stopStep(this.#cancelWord, id);
  }

  /** Sends a message with a fresh id and waits for its one result; `signal` cancels what can be. */
  #ask<T>(makeMessage: (id: number) => ToEngine, signal?: AbortSignal): Promise<T> {
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#receivers.set(id, { event() {}, result: (value) => resolve(value as T), failed: reject });
    const cancel = () => this.#cancel(id);
    signal?.addEventListener("abort", cancel);
    try {
      this.#send(makeMessage(id));
      if (signal?.aborted) cancel();
    } catch (error) {
      reject(error);
    }
    return promise.finally(() => {
      signal?.removeEventListener("abort", cancel);
      this.#receivers.delete(id);
    });
  }

  embed(
    prompts: readonly Int32Array[],
    pooling: Pooling,
    adapters?: readonly AdapterScale[],
    signal?: AbortSignal,
  ): Promise<Float32Array[]> {
    return this.#ask((id) => ({ kind: "embed", id, prompts, pooling, adapters }), signal);
  }

  async setAdapters(adapters: readonly AdapterChoice[]): Promise<void> {
    this.#facts = await this.#ask((id) => ({ kind: "setAdapters", id, adapters }));
  }

  async setLoadMode(mode: LoadMode): Promise<void> {
    await this.#ask<null>((id) => ({ kind: "setLoadMode", id, mode }));
  }

  async setWeightType(name: string, signal?: AbortSignal): Promise<void> {
    const message = (id: number): ToEngine => ({ kind: "setWeightType", id, name });
    this.#facts = await this.#ask<LoadedModelFacts>(message, signal);
  }

  status(): Promise<EngineStatus> {
    return this.#ask((id) => ({ kind: "status", id }));
  }

  async expertUse(): Promise<ExpertUse | undefined> {
    const use = await this.#ask<ExpertUse | null>((id) => ({ kind: "expertUse", id }));
    return use ?? undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const disposed = this.#ask<null>((id) => ({ kind: "dispose", id }));
    stopAllSteps(this.#cancelWord);
    await disposed;
    this.#worker.terminate();
  }
}

declare const self: Worker;

/** The Worker's side: one engine, one AbortController per request. */
function serveEngine(): void {
  const requests = new Map<number, AbortController>();
  const send = (message: FromEngine) => postMessage(message);
  let engine: Engine | undefined;

  async function generate(id: number, request: GenerationRequest): Promise<void> {
    for await (const event of engine!.generate(request, signalOf(id), id)) {
      send({ kind: "event", id, event });
    }
  }

  /** Raised by a "cancel" of this id. */
  function signalOf(id: number): AbortSignal {
    const controller = new AbortController();
    requests.set(id, controller);
    return controller.signal;
  }

  async function answer(message: ToEngine): Promise<void> {
    switch (message.kind) {
      case "load":
        engine = new Engine(message.path, message.options, { cancelWord: message.cancelWord });
        return send({ kind: "loaded", facts: engine.facts });
      case "generate":
        return generate(message.id, message.request);
      case "cancel":
        return requests.get(message.id)?.abort(message.reason);
      case "embed": {
        const { id, prompts, pooling, adapters } = message;
        const value = await engine!.embed(prompts, pooling, adapters, signalOf(id), id);
        return send({ kind: "result", id, value });
      }
      case "setAdapters":
        await engine!.setAdapters(message.adapters);
        return send({ kind: "result", id: message.id, value: engine!.facts });
      case "setLoadMode":
        await engine!.setLoadMode(message.mode);
        return send({ kind: "result", id: message.id, value: null });
      case "setWeightType":
        await engine!.setWeightType(message.name, signalOf(message.id));
        return send({ kind: "result", id: message.id, value: engine!.facts });
      case "status":
        return send({ kind: "result", id: message.id, value: await engine!.status() });
      case "expertUse": {
        const value = (await engine!.expertUse()) ?? null;
        return send({ kind: "result", id: message.id, value });
      }
      case "dispose":
        await engine![Symbol.asyncDispose]();
        return send({ kind: "result", id: message.id, value: null });
    }
  }

  self.onmessage = async ({ data: message }: MessageEvent<ToEngine>) => {
    const id = message.kind === "load" ? 0 : message.id;
    try {
      await answer(message);
    } catch (error) {
      send({ kind: "failed", id, error: errorToMessage(error) });
    } finally {
      if (message.kind !== "cancel") requests.delete(id);
    }
  };
}

if (!Bun.isMainThread) serveEngine();
