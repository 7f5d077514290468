// Raw results of every token of one sequence, logits or final hidden states, for comparing tinfer
// with other implementations.
import { TinferError } from "../core/errors.ts";
import type { PlanOutputs } from "../plan/builder.ts";
import { checkPrompt } from "./context-limits.ts";
import { LoadedModel } from "./loaded-model.ts";
import type { ModelOptions } from "./options.ts";
import { StepDriver } from "./step-driver.ts";

/** Rows of results that are in memory at a time, unless the caller says otherwise. */
export const defaultChunkLen = 64;

/** Rows of one chunk `[rows, width]`; valid until the next one is taken. */
export interface ResultChunk {
  readonly rows: number;
  readonly width: number;
  readonly values: Float32Array;
}

/**
 * Yields the results of each chunk of `chunkLen` tokens, in order; an encoder has one chunk.
 * Throws for logits of an encoder.
 */
export function* computeRows(
  path: string,
  options: ModelOptions,
  tokenIds: Int32Array,
  outputs: PlanOutputs,
  askedChunkLen?: number,
): Generator<ResultChunk> {
  const stepLen = askedChunkLen ?? defaultChunkLen;
  const step = { maxTokensPerStep: stepLen, maxOutputsPerStep: stepLen, maxSequences: 1 };
  using model = new LoadedModel(path, { ...options, ...step }, { outputs });
  const { maxContextLen, isEncoder } = model.facts;
  checkPrompt(tokenIds, model.facts, "read");
  const chunkLen = isEncoder ? (askedChunkLen ?? tokenIds.length) : stepLen;
  if (isEncoder && chunkLen < tokenIds.length) {
    const counts = `${tokenIds.length} tokens do not fit chunks of ${chunkLen}`;
    throw new TinferError("usage", `${counts}: an encoder reads its text in one step`);
  }
  const tensor = outputs === "hidden" ? model.plan.hidden! : model.plan.logits!;
  const driver = new StepDriver(model.session, maxContextLen);
  for (let start = 0; start < tokenIds.length; start += chunkLen) {
    const rows = Math.min(chunkLen, tokenIds.length - start);
    driver.run(tokenIds, start, rows, "all");
    yield { rows, width: tensor.width, values: model.session.readTensor(tensor) };
  }
}
