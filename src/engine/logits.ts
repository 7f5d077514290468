// Raw logits of every token of one sequence, for comparing tinfer with other implementations.
import { assert } from "../core/errors.ts";
import { checkPrompt } from "./engine.ts";
import { LoadedModel } from "./loaded-model.ts";
import type { ModelOptions } from "./options.ts";
import { StepDriver } from "./step-driver.ts";

/**
 * Yields the logits `[rows, vocabSize]` of each chunk of `chunkLen` tokens, in order. A chunk is
 * valid until the next one is taken.
 */
export function* computeLogits(
  path: string,
  options: ModelOptions,
  tokenIds: Int32Array,
  chunkLen: number,
): Generator<{ rows: number; vocabSize: number; logits: Float32Array }> {
  const step = { maxTokensPerStep: chunkLen, maxOutputsPerStep: chunkLen, maxSequences: 1 };
  using model = new LoadedModel(path, { ...options, ...step });
  const { maxContextLen } = model.facts;
  checkPrompt(tokenIds, { ...model.facts, maxContextLen: maxContextLen + 1 });
  const { logits } = model.plan;
  assert(logits !== undefined, "the plan ends in logits");
  const driver = new StepDriver(model.session, maxContextLen);
  for (let start = 0; start < tokenIds.length; start += chunkLen) {
    const rows = Math.min(chunkLen, tokenIds.length - start);
    driver.run(tokenIds, start, rows, "all");
    yield { rows, vocabSize: logits.width, logits: model.session.readTensor(logits) };
  }
}
