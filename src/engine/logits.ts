// Raw logits of every token of one sequence, for comparing tinfer with other implementations.

import { assert } from "../core/errors.ts";
import { blockSize } from "../plan/arena.ts";
import { checkPrompt } from "./engine.ts";
import { LoadedModel } from "./loaded-model.ts";
import type { ModelOptions } from "./options.ts";

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
  checkPrompt(tokenIds, { ...model.facts, maxContextLen: model.facts.maxContextLen + 1 });
  const { stepData } = model.session;
  const { logits } = model.plan;
  assert(logits !== undefined, "the plan ends in logits");
  for (let start = 0; start < tokenIds.length; start += chunkLen) {
    const rows = Math.min(chunkLen, tokenIds.length - start);
    stepData.reset();
    for (let i = 0; i < rows; i++) {
      stepData.tokenIds[i] = tokenIds[start + i]!;
      stepData.positions[i] = start + i;
      stepData.outputRows[i] = i;
      stepData.setSampling(i, greedyRow, 0, stepData.tokenIds, 0, 0, undefined);
    }
    stepData.queryStarts[1] = rows;
    stepData.kvLens[0] = start + rows;
    const numBlocks = Math.ceil((start + rows) / blockSize);
    for (let block = 0; block < numBlocks; block++) stepData.blockTables[block] = block;
    stepData.setCounts(rows, rows, 1);
    model.session.run();
    yield { rows, vocabSize: logits.width, logits: model.session.readTensor(logits) };
  }
}

const greedyRow = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seedLow: 0,
  seedHigh: 0,
  numLogprobs: 0,
};
