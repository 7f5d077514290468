// What Prometheus sees: counters and histograms of requests, and the engine's own counts, asked
// for at every scrape. The only user of prom-client.
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { EngineStatus } from "../engine/client.ts";
import type { GenerationEnd } from "../engine/text-generation.ts";

const secondsFromMs = (ms: number) => ms / 1000;

/** From a small model on a fast machine to a long prompt on a slow one. */
const longBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];
const shortBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

/** Gauges and counters whose values the engine keeps. */
const engineGauges = {
  running: "Sequences that take part in steps",
  waiting: "Sequences that wait for a place",
} as const satisfies Partial<Record<keyof EngineStatus, string>>;

const engineCounters = {
  promptTokensTotal: ["prompt_tokens_total", "Prompt tokens, from the cache or computed"],
  cachedPromptTokensTotal: ["cached_prompt_tokens_total", "Prompt tokens from the prefix cache"],
  generatedTokensTotal: ["generated_tokens_total", "Tokens generated"],
  preemptionsTotal: ["preemptions_total", "Sequences put back because KV blocks ran out"],
  cancelledTotal: ["cancelled_total", "Generations stopped before their end"],
  stepsTotal: ["steps_total", "Steps of the engine"],
} as const satisfies Partial<Record<keyof EngineStatus, readonly [string, string]>>;

export class Metrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<"route" | "status">;
  readonly #requestSeconds: Histogram<"route">;
  readonly #ttft: Histogram;
  readonly #interToken: Histogram;
  readonly #queue: Histogram;
  readonly #gauges: Map<string, Gauge>;
  readonly #counters: Map<string, Counter>;
  readonly #kvBlocks: Gauge<"state">;

  constructor(modelId: string) {
    const registers = [this.#registry];
    this.#registry.setDefaultLabels({ model: modelId });
    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({ name: `tinfer_${name}`, help, buckets, registers });
    this.#requests = new Counter({
      name: "tinfer_requests_total",
      help: "HTTP requests by route and status",
      labelNames: ["route", "status"],
      registers,
    });
    this.#requestSeconds = new Histogram({
      name: "tinfer_request_seconds",
      help: "Time from request to the end of its answer",
      labelNames: ["route"],
      buckets: longBuckets,
      registers,
    });
    this.#ttft = histogram("time_to_first_token_seconds", "Request to first token", longBuckets);
    this.#interToken = histogram("inter_token_seconds", "Time between tokens", shortBuckets);
    this.#queue = histogram("queue_seconds", "Wait for a place in the batch", longBuckets);
    this.#gauges = new Map(
      Object.entries(engineGauges).map(([key, help]) => {
        return [key, new Gauge({ name: `tinfer_${key}`, help, registers })];
      }),
    );
    this.#counters = new Map(
      Object.entries(engineCounters).map(([key, [name, help]]) => {
        return [key, new Counter({ name: `tinfer_${name}`, help, registers })];
      }),
    );
    this.#kvBlocks = new Gauge({
      name: "tinfer_kv_blocks",
      help: "KV blocks: used by sequences, cached for reuse, or free",
      labelNames: ["state"],
      registers,
    });
  }

  countRequest(route: string, status: number, ms: number): void {
    this.#requests.inc({ route, status: String(status) });
    this.#requestSeconds.observe({ route }, secondsFromMs(ms));
  }

  observeInterToken(ms: number): void {
    this.#interToken.observe(secondsFromMs(ms));
  }

  observeEnd({ timings, completionTokens }: GenerationEnd): void {
    this.#queue.observe(secondsFromMs(timings.queueMs));
    if (completionTokens > 0) this.#ttft.observe(secondsFromMs(timings.ttftMs));
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The text of /metrics; without a status, while the model loads, the engine's values are 0. */
  async render(status: EngineStatus | undefined): Promise<string> {
    if (status !== undefined) this.#copy(status);
    return this.#registry.metrics();
  }

  #copy(status: EngineStatus): void {
    for (const key of Object.keys(engineGauges) as (keyof typeof engineGauges)[]) {
      this.#gauges.get(key)!.set(status[key]);
    }
    for (const key of Object.keys(engineCounters) as (keyof typeof engineCounters)[]) {
      const counter = this.#counters.get(key)!;
      counter.reset();
      counter.inc(status[key]);
    }
    const { kvBlocks, usedKvBlocks, cachedKvBlocks } = status;
    this.#kvBlocks.set({ state: "used" }, usedKvBlocks);
    this.#kvBlocks.set({ state: "cached" }, cachedKvBlocks);
    this.#kvBlocks.set({ state: "free" }, kvBlocks - usedKvBlocks - cachedKvBlocks);
  }
}
