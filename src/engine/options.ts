// How to load a model: the model flags of the command line in typed form.
import type { RopeOptions } from "../models/rope-options.ts";
import type { KvType } from "../plan/ops.ts";
import type { AdapterChoice } from "./adapter-choice.ts";

/**
 * How weights come into memory. `lazy`: mapped, page by page at first use; `auto`: mapped, all at
 * load where they fit, and copied into huge pages while idle where memory allows and either the
 * page cache has small ones or the copy can be interleaved, which is faster; `eager`: copied into
 * huge pages at load, interleaved where possible.
 */
export const loadModes = ["auto", "lazy", "eager"] as const;
export type LoadMode = (typeof loadModes)[number];

export interface ModelOptions {
  /** `auto` or a backend's name. */
  readonly backend: string;
  /** undefined = one per core. */
  readonly numThreads: number | undefined;
  /** Tokens per sequence; undefined = the model's own, at most `defaultContextLen`. */
  readonly contextLen: number | undefined;
  /** Sequences that run at the same time. */
  readonly maxSequences: number;
  /** Requests that may wait for their turn; more are refused as overloaded. */
  readonly maxWaiting: number;
  /** undefined = by the main weight type: f32 for F32, f16 for F16 and Q8_0, else bf16. */
  readonly kvTypeK: KvType | undefined;
  readonly kvTypeV: KvType | undefined;
  readonly slidingWindow: "auto" | "off" | number;
  /** In the place of the model's own values. */
  readonly rope: RopeOptions;
  /** Added to the weights in every step, by their scales. */
  readonly adapters: readonly AdapterChoice[];
  readonly load: LoadMode;
  /** The mix of types to quantise to while loading; undefined = as the model has them. */
  readonly quantize: string | undefined;
  /** Weights are locked in memory once they are there. */
  readonly lock: boolean;
  /** Memory is spread over the machine's memory nodes. */
  readonly numa: boolean;
  /** One CPU per thread to pin it to; undefined = the system places them. */
  readonly cpus: readonly number[] | undefined;
  /** Whether to use the machine's tuning, and to find it where there is none yet. */
  readonly tuning: boolean;
  /** CPU variant by name; undefined = the best one. */
  readonly cpuVariant: string | undefined;
  /**
   * Most tokens in one step: the prefill chunk. undefined = 512, or as many as all sequences and
   * some of a prompt need.
   */
  readonly maxTokensPerStep: number | undefined;
  /** Most rows with logits in one step; at least `maxSequences`. */
  readonly maxOutputsPerStep: number | undefined;
}

export const defaultContextLen = 8192;

export const defaultModelOptions: ModelOptions = {
  backend: "auto",
  numThreads: undefined,
  contextLen: undefined,
  maxSequences: 1,
  maxWaiting: 512,
  kvTypeK: undefined,
  kvTypeV: undefined,
  slidingWindow: "auto",
  rope: {},
  adapters: [],
  load: "auto",
  quantize: undefined,
  lock: false,
  numa: false,
  cpus: undefined,
  // Commands turn it on: nothing else writes to the user's cache folder.
  tuning: false,
  cpuVariant: undefined,
  maxTokensPerStep: undefined,
  maxOutputsPerStep: undefined,
};
