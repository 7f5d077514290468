// POST /v1/rerank and its other names: documents by how well they answer a query. The form is
// Jina's and Cohere's; a body with `texts` asks for that of Text Embeddings Inference.
import { z } from "zod";
import { promptLimit } from "../../engine/context-limits.ts";
import { rankPrompt, relevance, requireRanker } from "../../engine/reranking.ts";
import { readBody } from "../body.ts";
import { poolAll } from "../embeddings.ts";
import { RequestError } from "../request-error.ts";
import type { Route } from "../server-state.ts";

const documentField = z.union([z.string(), z.looseObject({ text: z.string() })], {
  error: "expected a string or an object with a text",
});
const flag = z.boolean().nullish();

const rerankSchema = z.looseObject({
  model: z.string().nullish(),
  query: z.string(),
  documents: z.array(documentField).min(1).nullish(),
  texts: z.array(z.string()).min(1).nullish(),
  /** Results to return, the best first; default: all. */
  top_n: z.number().int().min(1).nullish(),
  /** Whether results repeat their text; `return_text` of those with `texts`. */
  return_documents: flag,
  return_text: flag,
});

interface Ranked {
  readonly index: number;
  readonly score: number;
}

function textsOf({ documents, texts }: z.infer<typeof rerankSchema>): string[] {
  const given = documents ?? texts;
  if (given == null || (documents != null && texts != null)) {
    const message = given == null ? "is missing" : "and texts mean the same, give one";
    throw new RequestError(400, `documents: ${message}`, { field: "documents" });
  }
  return given.map((entry) => (typeof entry === "string" ? entry : entry.text));
}

const route = (path: string): Route => ({
  method: "POST",
  path,
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, rerankSchema);
    const model = server.model.named(body.model);
    const { facts } = model.client;
    requireRanker(facts);
    const texts = textsOf(body);
    const limit = promptLimit(facts, "read");
    const prompts = texts.map((text) => rankPrompt(model.text, body.query, text, limit));
    const { vectors, promptTokens } = await poolAll(server, model, exchange, prompts, "rank");
    const ranked = vectors
      .map((scores, index): Ranked => ({ index, score: relevance(scores, facts) }))
      .toSorted((a, b) => b.score - a.score)
      .slice(0, body.top_n ?? texts.length);
    if (body.texts != null) {
      const text = (index: number) => (body.return_text ? { text: texts[index] } : {});
      return Response.json(ranked.map(({ index, score }) => ({ index, score, ...text(index) })));
    }
    const document = (index: number) => {
      return body.return_documents ? { document: { text: texts[index] } } : {};
    };
    return Response.json({
      model: model.id,
      object: "list",
      usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
      results: ranked.map(({ index, score }) => {
        return { index, relevance_score: score, ...document(index) };
      }),
    });
  },
});

export const rerankRoutes = ["/v1/rerank", "/v1/reranking", "/rerank", "/reranking"].map(route);
