// How well documents answer a query, by a model that was made to score such pairs: what it reads
// for a pair, and what its head's scores mean.
import { TinferError } from "../core/errors.ts";
import type { TokenLimit } from "../tokenizer/tokenizer.ts";
import type { LoadedModelFacts } from "./client.ts";
import type { ModelText } from "./model-text.ts";

/** Throws for models that were made for something else. */
export function requireRanker({ pooling }: Pick<LoadedModelFacts, "pooling">): void {
  if (pooling === "rank") return;
  throw new TinferError("unsupported", "the model does not score documents for a query", {
    hint: "serve a reranker, such as a GGUF file of bge-reranker-v2-m3 or Qwen3-Reranker",
  });
}

/** What the model reads for the query with one document. */
export function rankPrompt(
  { tokenizer, rankTemplate }: Pick<ModelText, "tokenizer" | "rankTemplate">,
  query: string,
  document: string,
  limit?: TokenLimit,
): Int32Array {
  if (rankTemplate === undefined) return tokenizer.encodePair(query, document, limit);
  // In one pass: the query's text may look like a place for the document.
  const text = rankTemplate.replaceAll(/\{(query|document)\}/g, (_, name) => {
    return name === "query" ? query : document;
  });
  return tokenizer.encode(text, { addSpecial: false, limit });
}

/**
 * The higher the better: an encoder's first score as it is, of a decoder, whose labels are yes and
 * no, the probability of the first. `scores` `[labels]`.
 */
export function relevance(
  scores: Float32Array,
  { isEncoder }: Pick<LoadedModelFacts, "isEncoder">,
): number {
  const first = scores[0]!;
  if (isEncoder || scores.length === 1) return first;
  return 1 / scores.reduce((sum, score) => sum + Math.exp(score - first), 0);
}
