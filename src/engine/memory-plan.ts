// Sizes of a loaded model before anything is taken: context, KV blocks, arena, scratch; and the
// answer to "does it fit". `tinfer plan` prints these bytes and the loader takes exactly them.
import type { Backend, PlanMemory } from "../backend/backend.ts";
import { TinferError } from "../core/errors.ts";
import type { ModelConfig } from "../models/model-config.ts";
import { blockSize, layoutMemory, type MemoryLayout, type PlanLimits } from "../plan/arena.ts";
import type { Plan } from "../plan/builder.ts";
import type { KvType } from "../plan/ops.ts";
import { defaultContextLen, type ModelOptions } from "./options.ts";

export interface MemoryPlan {
  readonly limits: PlanLimits;
  readonly layout: MemoryLayout;
  readonly memory: PlanMemory;
  readonly maxContextLen: number;
  readonly numThreads: number;
}

/** What the weights of a model's files take. */
export interface WeightMemoryPlan {
  /** Used as the file has them: mapped, or with `--load eager` a copy. */
  readonly fileBytes: number;
  /** Made at load: tensors that no file holds as they are used. */
  readonly derivedBytes: number;
}

/** Options with what depends on machine and model filled in. */
export type ResolvedOptions = ModelOptions & {
  readonly maxTokensPerStep: number;
  readonly numThreads: number;
  readonly kvTypeK: KvType;
  readonly kvTypeV: KvType;
  readonly isEncoder: boolean;
  /** Positions that the model has embeddings for; undefined where it computes them. */
  readonly positionLimit: number | undefined;
};

/** Texts that an encoder takes in one step. */
const maxEncoderTexts = 64;

function limitsFor(options: ResolvedOptions, contextLen: number): PlanLimits {
  const { kvTypeK, kvTypeV, maxTokensPerStep } = options;
  const maxBlocksPerSequence = Math.ceil(contextLen / blockSize);
  const shared = { maxBlocksPerSequence, kvTypeK, kvTypeV };
  if (options.isEncoder) {
    // It sees a text whole; the cache holds the texts of one step, each in blocks of its own.
    const maxTokens = Math.max(maxTokensPerStep, contextLen);
    const maxSequences = maxEncoderTexts;
    const numBlocks = Math.ceil(maxTokens / blockSize) + maxSequences;
    return { ...shared, maxTokens, maxOutputs: maxTokens, maxSequences, numBlocks };
  }
  const { maxSequences } = options;
  return {
    ...shared,
    maxTokens: maxTokensPerStep,
    maxOutputs: options.maxOutputsPerStep ?? maxSequences,
    maxSequences,
    numBlocks: maxBlocksPerSequence * maxSequences,
  };
}

/** What a session takes in all. */
export function sessionBytes(memory: PlanMemory): number {
  return memory.arenaBytes + memory.kvBytes + memory.scratchBytes + memory.tableBytes;
}

/** Up to a multiple of 256, as llama.cpp does: matters to models trained for less. */
const roundContext = (contextLen: number) => Math.ceil(contextLen / 256) * 256;

/** What the options ask for, or the default: the model's own up to `defaultContextLen`. */
export function wantedContextLen(
  config: ModelConfig,
  options: Pick<ModelOptions, "contextLen">,
): number {
  return options.contextLen ?? Math.min(roundContext(config.scaledContextLen), defaultContextLen);
}

/** The most whole blocks of tokens that fit, where `tooLong` do not; 0 where not even one does. */
function largestFitting(tooLong: number, fits: (contextLen: number) => boolean): number {
  // Cache, scratch and an encoder's activations all grow with the context, each in its own way.
  let most = 0;
  let tooMany = Math.ceil(tooLong / blockSize);
  while (tooMany - most > 1) {
    const middle = Math.floor((most + tooMany) / 2);
    if (fits(middle * blockSize)) most = middle;
    else tooMany = middle;
  }
  return most * blockSize;
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;

/**
 * Throws `outOfMemory`, naming the largest context that fits, when `options.contextLen` asks for
 * more than `availableBytes`; without a wish the default context shrinks to what fits.
 */
export function planMemory(
  plan: Plan,
  config: ModelConfig,
  backend: Backend,
  options: ResolvedOptions,
  availableBytes: number,
): MemoryPlan {
  const { numThreads } = options;
  const measure = (contextLen: number): MemoryPlan => {
    const limits = limitsFor(options, contextLen);
    const layout = layoutMemory(plan, limits);
    const { cpuVariant } = options;
    const memory = backend.measure(plan, layout, { limits, numThreads, cpuVariant });
    return { limits, layout, memory, maxContextLen: contextLen, numThreads };
  };
  const total = ({ memory }: MemoryPlan) => sessionBytes(memory);

  const limit = options.positionLimit ?? Number.POSITIVE_INFINITY;
  const wanted = Math.min(wantedContextLen(config, options), limit);
  const first = measure(wanted);
  if (total(first) <= availableBytes) return first;

  const fitting = largestFitting(wanted, (contextLen) => {
    return total(measure(contextLen)) <= availableBytes;
  });
  if (options.contextLen === undefined && fitting >= 512) return measure(fitting);
  const needs = `a context of ${wanted} tokens needs ${gigabytes(total(first))}`;
  const has = `${gigabytes(availableBytes)} are available`;
  const is16Bit = [options.kvTypeK, options.kvTypeV].every((type) => /^b?f16$/.test(type));
  const smaller = is16Bit ? "; --kv-type q8_0 about doubles it" : "";
  throw new TinferError("outOfMemory", `${needs}, ${has}`, {
    hint:
      fitting >= blockSize
        ? `the largest context that fits is --ctx ${fitting}${smaller}`
        : "no context fits: close other programs or use a smaller model",
  });
}
