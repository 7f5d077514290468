// POST /v1/embeddings.
import { z } from "zod";
import { promptLimit } from "../../engine/context-limits.ts";
import { readBody } from "../body.ts";
import { embedAll } from "../embeddings.ts";
import type { Route } from "../server-state.ts";
import { promptField, toPrompts } from "./completions.ts";

const embeddingSchema = z.looseObject({
  model: z.string().nullish(),
  input: promptField,
  encoding_format: z.enum(["float", "base64"]).nullish(),
  dimensions: z.number().int().min(1).nullish(),
  user: z.unknown().optional(),
});

/** Little-endian f32, as OpenAI's clients decode it. */
function toBase64(vector: Float32Array): string {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64");
}

export const embeddingRoute: Route = {
  method: "POST",
  path: "/v1/embeddings",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const limit = server.options.maxBodyBytes;
    const body = await readBody(c.req.raw, exchange, limit, embeddingSchema);
    const model = server.model.named(body.model);
    const longest = promptLimit(model.client.facts, "read");
    const prompts = toPrompts(model.text.tokenizer, body.input, longest);
    const { vectors, promptTokens } = await embedAll(
      server,
      model,
      exchange,
      prompts,
      body.dimensions,
    );
    const asText = body.encoding_format === "base64";
    return Response.json({
      object: "list",
      data: vectors.map((vector, index) => ({
        object: "embedding",
        index,
        embedding: asText ? toBase64(vector) : [...vector],
      })),
      model: model.id,
      usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
    });
  },
};
