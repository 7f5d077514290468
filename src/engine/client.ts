// What everyone above the engine programs against: requests in, token events out. `engine.ts`
// implements it in-process, `worker.ts` over a Worker.
import type { PoolingType } from "../models/model-config.ts";
import type { SamplingParameters } from "../sampling/parameters.ts";
import type { AdapterChoice, AdapterScale } from "./adapter-choice.ts";
import type { ExpertUse } from "./expert-use.ts";
import type { LoadMode } from "./options.ts";
import type { Pooling } from "./pooling.ts";

export interface GenerationRequest {
  readonly promptTokenIds: Int32Array;
  /** Most tokens to generate; the context limit may end it sooner. */
  readonly maxTokens: number;
  readonly sampling: SamplingParameters;
  /** Tokens that end the generation; the ending token is reported, not part of the text. */
  readonly stopTokenIds: readonly number[];
  /** Of the loaded adapters; none for the model alone, undefined for their own scales. */
  readonly adapters?: readonly AdapterScale[] | undefined;
}

export interface TokenLogprob {
  readonly tokenId: number;
  readonly logprob: number;
}

/** The reason of a signal that ends a request because it has all it wanted: not a cancellation. */
export const hasEnough = "has enough";

/** `cancelled`: the signal was raised or the caller stopped iterating. */
export type EndReason = "stopToken" | "length" | "context" | "cancelled";

export interface Timings {
  /** Waiting for a place in the batch. */
  readonly queueMs: number;
  /** Request to first token. */
  readonly ttftMs: number;
  readonly promptMs: number;
  readonly generateMs: number;
}

export type GenerationEvent =
  | {
      readonly kind: "token";
      readonly tokenId: number;
      readonly logprob: number;
      /** The best candidates, when `sampling.logprobs` > 0. */
      readonly top: readonly TokenLogprob[];
    }
  | {
      readonly kind: "end";
      readonly reason: EndReason;
      readonly promptTokens: number;
      /** Prompt tokens that came from the prefix cache. */
      readonly cachedTokens: number;
      readonly completionTokens: number;
      readonly timings: Timings;
    }
  /** Progress of a long prompt: tokens computed so far of `promptTokens`. */
  | { readonly kind: "prompt"; readonly computedTokens: number; readonly promptTokens: number };

export interface EngineStatus {
  readonly running: number;
  readonly waiting: number;
  readonly kvBlocks: number;
  readonly usedKvBlocks: number;
  readonly cachedKvBlocks: number;
  readonly promptTokensTotal: number;
  readonly cachedPromptTokensTotal: number;
  readonly generatedTokensTotal: number;
  readonly preemptionsTotal: number;
  readonly cancelledTotal: number;
  readonly stepsTotal: number;
  readonly loadMode: LoadMode;
  /** Weights that lie in huge pages instead of the mapped file, so far. */
  readonly copiedWeightBytes: number;
  /** Taken at the first embedding by a model that generates. */
  readonly embeddingBytes: number;
  readonly weightChange: WeightChange | undefined;
}

/** How far the weights are on their way to another type. */
export interface WeightChange {
  readonly type: string;
  readonly doneBytes: number;
  /** 0: not yet known. */
  readonly totalBytes: number;
}

/** Facts about the loaded model that callers show or check requests against. */
export interface LoadedModelFacts {
  readonly path: string;
  readonly architecture: string;
  /** Makes embeddings of whole texts and generates nothing. */
  readonly isEncoder: boolean;
  /** As the file states it. */
  readonly pooling: PoolingType | undefined;
  readonly name: string | undefined;
  /** Weight types by bytes, the largest first, e.g. "q4_k". */
  readonly mainType: string;
  readonly backend: string;
  readonly cpuVariant: string;
  readonly numThreads: number;
  readonly parameters: number;
  /** Tokens one sequence may have. */
  readonly maxContextLen: number;
  readonly trainedContextLen: number;
  /** What the user's rope scaling makes of that. */
  readonly scaledContextLen: number;
  /** How far the model's rope is stretched; 1 = not at all. */
  readonly ropeFactor: number;
  /** Positions that the model has an embedding for; undefined where they are computed. */
  readonly positionLimit: number | undefined;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly maxSequences: number;
  /** Tokens of one step over all sequences. */
  readonly maxTokensPerStep: number;
  readonly weightBytes: number;
  /** Of these, what is used as the files have it. */
  readonly mappedWeightBytes: number;
  /** Memory of the others, which are made at load. */
  readonly derivedWeightBytes: number;
  readonly kvBytes: number;
  readonly arenaBytes: number;
  readonly scratchBytes: number;
  /** Tables made by the model code. */
  readonly tableBytes: number;
  readonly loadMs: number;
  /** With the scales that requests get which name none. */
  readonly adapters: readonly AdapterChoice[];
}

export interface EngineClient extends AsyncDisposable {
  readonly facts: LoadedModelFacts;
  /**
   * Runs one request. Raising `signal` or leaving the loop stops the work within one step.
   * Throws TinferError: contextOverflow (prompt too long), overloaded, outOfMemory.
   */
  generate(
    request: GenerationRequest,
    signal?: AbortSignal,
  ): AsyncIterableIterator<GenerationEvent>;
  /**
   * The final hidden states of each prompt, pooled to `[hiddenSize]` or, with "none", as they are
   * `[tokens, hiddenSize]`; not normalised. `text-embedding.ts` sends many prompts in portions.
   * `adapters` as in requests. Raising `signal` stops the work within one step.
   */
  embed(
    prompts: readonly Int32Array[],
    pooling: Pooling,
    adapters?: readonly AdapterScale[],
    signal?: AbortSignal,
  ): Promise<Float32Array[]>;
  /**
   * How weights lie in memory from now on, while requests run; resolves when it is done, for
   * `auto` when it has begun. Throws outOfMemory, and leaves all as it was.
   */
  setLoadMode(mode: LoadMode): Promise<void>;
  /**
   * From the next request on these adapters; `facts` change with it. Other files than those
   * loaded take effect only while no request runs. Throws, and leaves all as it was.
   */
  setAdapters(adapters: readonly AdapterChoice[]): Promise<void>;
  /**
   * Computes with the weights in the types of a mix such as "q4_0", or with "original" as the file
   * has them, once they are made; requests go on meanwhile and afterwards. Resolves when it is so.
   * Throws, and leaves all as it was: unknown types, no space, no memory, another change under way,
   * `signal` raised.
   */
  setWeightType(name: string, signal?: AbortSignal): Promise<void>;
  status(): Promise<EngineStatus>;
  /** Which experts tokens went to since the model was loaded; undefined: it has none. */
  expertUse(): Promise<ExpertUse | undefined>;
}
