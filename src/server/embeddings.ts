// Embeddings in no dialect yet: the pooled hidden state of each text, of length 1; and the way of
// texts through the engine that rerankers take too.
import { checkPrompt } from "../engine/context-limits.ts";
import { normalizeRows, type Pooling, poolingOf } from "../engine/pooling.ts";
import { embedTexts } from "../engine/text-embedding.ts";
import type { Exchange } from "./exchange.ts";
import { refuse } from "./request-error.ts";
import type { ServedModel } from "./served-model.ts";
import type { ServerState } from "./server-state.ts";

/** Texts of one request. */
const maxTexts = 2048;

/**
 * One embedding per prompt; all prompts are checked first. `dimensions`: of each vector only the
 * first so many, which mean something in models that were trained so (arXiv 2205.13147).
 */
export async function embedAll(
  server: ServerState,
  model: ServedModel,
  exchange: Exchange,
  prompts: readonly Int32Array[],
  dimensions?: number | null,
): Promise<{ vectors: Float32Array[]; promptTokens: number }> {
  const { facts } = model.client;
  const width = dimensions ?? facts.hiddenSize;
  if (width > facts.hiddenSize) {
    throw refuse("dimensions", `${width} is more than the ${facts.hiddenSize} of the model`);
  }
  const own = poolingOf(facts);
  // A text has one vector in every API: the mean where the model leaves the pooling open.
  const pooling = own === "none" ? "mean" : own;
  const { vectors, promptTokens } = await poolAll(server, model, exchange, prompts, pooling);
  const normalized = vectors.map((vector) => normalizeRows(vector.subarray(0, width), width));
  return { vectors: normalized, promptTokens };
}

/** What the pooling makes of each prompt; all prompts are checked first. */
export async function poolAll(
  server: ServerState,
  model: ServedModel,
  exchange: Exchange,
  prompts: readonly Int32Array[],
  pooling: Pooling,
): Promise<{ vectors: Float32Array[]; promptTokens: number }> {
  if (prompts.length > maxTexts) {
    throw refuse("input", `${prompts.length} texts, at most ${maxTexts} in one request`);
  }
  const { client } = model;
  for (const tokenIds of prompts) checkPrompt(tokenIds, client.facts, "read");
  const promptTokens = prompts.reduce((sum, { length }) => sum + length, 0);
  exchange.record.promptTokens = promptTokens;
  const start = performance.now();
  server.admission.enter(1);
  try {
    const vectors: Float32Array[] = [];
    const { adapters } = model;
    for await (const vector of embedTexts(client, prompts, pooling, adapters, exchange.signal)) {
      vectors.push(vector);
    }
    return { vectors, promptTokens };
  } catch (error) {
    // Why it was stopped says more than that it was.
    exchange.signal.throwIfAborted();
    throw error;
  } finally {
    server.admission.leave(performance.now() - start);
  }
}
