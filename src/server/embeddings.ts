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

/** One embedding per prompt; all prompts are checked first. */
export async function embedAll(
  server: ServerState,
  model: ServedModel,
  exchange: Exchange,
  prompts: readonly Int32Array[],
): Promise<{ vectors: Float32Array[]; promptTokens: number }> {
  const { facts } = model.client;
  const own = poolingOf(facts);
  // A text has one vector in every API: the mean where the model leaves the pooling open.
  const pooling = own === "none" ? "mean" : own;
  const { vectors, promptTokens } = await poolAll(server, model, exchange, prompts, pooling);
  const normalized = vectors.map((vector) => normalizeRows(vector, facts.hiddenSize));
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
    for await (const vector of embedTexts(client, prompts, pooling, model.adapters)) {
      exchange.signal.throwIfAborted();
      vectors.push(vector);
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
