// POST /api/embed, and /api/embeddings, its older form for one text.
import { z } from "zod";
import { promptLimit } from "../../engine/context-limits.ts";
import { readBody } from "../body.ts";
import { embedAll } from "../embeddings.ts";
import type { Exchange } from "../exchange.ts";
import type { ServedModel } from "../served-model.ts";
import type { Route } from "../server-state.ts";
import { nanoseconds } from "./answer-shapes.ts";
import { optionsField, refuseUnsupported, sharedFields } from "./options.ts";

const shared = {
  model: sharedFields.model,
  keep_alive: sharedFields.keep_alive,
  options: optionsField,
};

const embedSchema = z.looseObject({
  ...shared,
  input: z.union([z.string(), z.array(z.string())], {
    error: "expected a string or an array of strings",
  }),
  /** Only on request: a text that is too long is an error otherwise. */
  truncate: z.boolean().nullish(),
  dimensions: z.number().int().min(1).nullish(),
});

const embeddingsSchema = z.looseObject({ ...shared, prompt: z.string() });

function encode(
  exchange: Exchange,
  model: ServedModel,
  body: z.infer<typeof embedSchema>,
): Int32Array[] {
  const texts = typeof body.input === "string" ? [body.input] : body.input;
  const longest = model.client.facts.maxContextLen;
  const { error, ...counts } = promptLimit(model.client.facts, "read");
  const limit = body.truncate ? counts : { ...counts, error };
  const { tokenizer } = model.text;
  // Clients send no text to see whether the model is there.
  if (body.input === "") return [];
  return texts.map((text) => {
    const tokenIds = tokenizer.encode(text, { limit });
    if (!body.truncate || tokenIds.length <= longest) return tokenIds;
    exchange.truncatedTokens += tokenIds.length - longest;
    const cut = tokenIds.slice(0, longest);
    // Models read their closing token, [SEP] or the end of the text, at the end of what is left.
    if (tokenizer.addsEos) cut[longest - 1] = tokenIds.at(-1)!;
    return cut;
  });
}

export const embedRoute: Route = {
  method: "POST",
  path: "/api/embed",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, embedSchema);
    const model = server.model.named(body.model);
    refuseUnsupported(exchange, body);
    const prompts = encode(exchange, model, body);
    const { vectors, promptTokens } = await embedAll(
      server,
      model,
      exchange,
      prompts,
      body.dimensions,
    );
    return Response.json({
      model: model.id,
      embeddings: vectors.map((vector) => [...vector]),
      total_duration: nanoseconds(exchange.elapsedMs),
      load_duration: 0,
      prompt_eval_count: promptTokens,
    });
  },
};

export const embeddingsRoute: Route = {
  method: "POST",
  path: "/api/embeddings",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const limit = server.options.maxBodyBytes;
    const body = await readBody(c.req.raw, exchange, limit, embeddingsSchema);
    const model = server.model.named(body.model);
    refuseUnsupported(exchange, body);
    const longest = promptLimit(model.client.facts, "read");
    const prompts = [model.text.tokenizer.encode(body.prompt, { limit: longest })];
    const { vectors } = await embedAll(server, model, exchange, prompts);
    return Response.json({ embedding: [...vectors[0]!] });
  },
};
