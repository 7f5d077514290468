// POST /api/embed, and /api/embeddings, its older form for one text.
import { z } from "zod";
import { promptLimit } from "../../engine/context-limits.ts";
import { readBody } from "../body.ts";
import { embedAll } from "../embeddings.ts";
import type { Exchange } from "../exchange.ts";
import { RequestError } from "../request-error.ts";
import type { ServedModel } from "../served-model.ts";
import type { Route } from "../server-state.ts";
import { nanoseconds } from "./answer-shapes.ts";
import { contextLenOf, contextOptions, refuseUnsupported, sharedFields } from "./options.ts";

const shared = {
  model: sharedFields.model,
  keep_alive: sharedFields.keep_alive,
  /** Those of the sampler mean nothing here, and are named as ignored. */
  options: z.looseObject(contextOptions).nullish(),
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

type EmbedBody = z.infer<typeof embedSchema>;

function encode(
  exchange: Exchange,
  model: ServedModel,
  text: string,
  { options, truncate }: Pick<EmbedBody, "options" | "truncate">,
): Int32Array {
  const { tokenizer } = model.text;
  const longest = contextLenOf(model, options ?? {});
  const { error, ...counts } = promptLimit(model.client.facts, "read");
  const tokenIds = tokenizer.encode(text, { limit: truncate ? counts : { ...counts, error } });
  if (tokenIds.length <= longest) return tokenIds;
  if (!truncate) {
    // What is more than the model can read is refused with all others, with advice on --ctx.
    if (options?.num_ctx == null) return tokenIds;
    const message = `the text has ${tokenIds.length} tokens, the context ${longest}`;
    throw new RequestError(400, message, {
      field: "options.num_ctx",
      code: "context_length_exceeded",
      hint: "shorten the text, or raise options.num_ctx; /api/embed cuts it with truncate: true",
    });
  }
  exchange.truncatedTokens += tokenIds.length - longest;
  const cut = tokenIds.slice(0, longest);
  // Models read their closing token, [SEP] or the end of the text, at the end of what is left.
  if (tokenizer.addsEos) cut[longest - 1] = tokenIds.at(-1)!;
  return cut;
}

export const embedRoute: Route = {
  method: "POST",
  path: "/api/embed",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, embedSchema);
    const model = server.model.named(body.model);
    refuseUnsupported(body);
    const texts = typeof body.input === "string" ? [body.input] : body.input;
    // Clients send no text to see whether the model is there.
    const isEmpty = body.input === "";
    const prompts = isEmpty ? [] : texts.map((text) => encode(exchange, model, text, body));
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
    refuseUnsupported(body);
    const prompts = [encode(exchange, model, body.prompt, { options: body.options })];
    const { vectors } = await embedAll(server, model, exchange, prompts);
    return Response.json({ embedding: [...vectors[0]!] });
  },
};
