// Embeddings in no dialect yet: the pooled hidden state of each text, of length 1.

import type { Pooling } from "../engine/client.ts";
import { checkPrompt } from "../engine/engine.ts";
import type { Exchange } from "./exchange.ts";
import { refuse } from "./request-error.ts";
import type { ServedModel } from "./served-model.ts";
import type { ServerState } from "./server-state.ts";

/** Texts of one request. */
const maxTexts = 2048;

/** GGUF's numbers of pooling types; a model without one is a generator: the mean is taken. */
const poolings: Readonly<Record<number, Pooling>> = { 0: "mean", 1: "mean", 2: "first", 3: "last" };

export function poolingOf({ text, client }: ServedModel): Pooling {
  const type = text.header.metadata.get(`${client.facts.architecture}.pooling_type`);
  const pooling = type === undefined ? "mean" : poolings[Number(type)];
  if (pooling !== undefined) return pooling;
  throw refuse("model", `its pooling type ${String(type)} gives no embeddings`);
}

/** Scales to length 1, so that dot products are cosines; the zero vector stays. */
function normalise(vector: Float32Array): Float32Array {
  let sum = 0;
  for (const value of vector) sum += value * value;
  const length = Math.sqrt(sum);
  return length === 0 ? vector : vector.map((value) => value / length);
}

/** One embedding per prompt; all prompts are checked first. */
export async function embedAll(
  server: ServerState,
  model: ServedModel,
  exchange: Exchange,
  prompts: readonly Int32Array[],
): Promise<{ vectors: Float32Array[]; promptTokens: number }> {
  if (prompts.length > maxTexts) {
    throw refuse("input", `${prompts.length} texts, at most ${maxTexts} in one request`);
  }
  for (const tokenIds of prompts) checkPrompt(tokenIds, model.client.facts);
  const pooling = poolingOf(model);
  const promptTokens = prompts.reduce((sum, { length }) => sum + length, 0);
  exchange.record.promptTokens = promptTokens;
  const start = performance.now();
  server.admission.enter(1);
  try {
    const vectors: Float32Array[] = [];
    for (const tokenIds of prompts) {
      exchange.signal.throwIfAborted();
      vectors.push(normalise(await model.client.embed(tokenIds, pooling)));
    }
    return { vectors, promptTokens };
  } finally {
    server.admission.leave(performance.now() - start);
  }
}

/** Refuses a number of dimensions other than the model's: a cut vector means something else. */
export function checkDimensions(model: ServedModel, dimensions: number | null | undefined): void {
  const { hiddenSize } = model.client.facts;
  if (dimensions == null || dimensions === hiddenSize) return;
  throw refuse("dimensions", `${dimensions} is not supported; the model's vectors: ${hiddenSize}`);
}
