// /tokenize, /detokenize and /render: the model's text side, for programs that count tokens.
import { z } from "zod";
import { readBody } from "../body.ts";
import { messageSchema, toMessages } from "../openai/chat.ts";
import { RequestError, refuse } from "../request-error.ts";
import { chatOf } from "../served-model.ts";
import type { Route } from "../server-state.ts";

const tokenizeSchema = z.looseObject({
  model: z.string().nullish(),
  content: z.string().nullish(),
  /** The same as `content`, in other servers' words. */
  prompt: z.string().nullish(),
  add_special: z.boolean().nullish(),
  parse_special: z.boolean().nullish(),
  with_pieces: z.boolean().nullish(),
});

export const tokenizeRoute: Route = {
  method: "POST",
  path: "/tokenize",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, tokenizeSchema);
    const model = server.model.named(body.model);
    const { tokenizer } = model.text;
    const content = body.content ?? body.prompt;
    if (content == null) throw new RequestError(400, "content: is missing", { field: "content" });
    const ids = tokenizer.encode(content, {
      addSpecial: body.add_special ?? false,
      parseSpecial: body.parse_special ?? true,
    });
    const tokens = body.with_pieces
      ? Array.from(ids, (id) => ({ id, piece: tokenizer.tokenText(id) }))
      : [...ids];
    return Response.json({ tokens, count: ids.length });
  },
};

const detokenizeSchema = z.looseObject({
  model: z.string().nullish(),
  tokens: z.array(z.number().int().min(0)),
});

export const detokenizeRoute: Route = {
  method: "POST",
  path: "/detokenize",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const limit = server.options.maxBodyBytes;
    const body = await readBody(c.req.raw, exchange, limit, detokenizeSchema);
    const { tokenizer } = server.model.named(body.model).text;
    const wrong = body.tokens.find((id) => id >= tokenizer.vocabSize);
    if (wrong !== undefined) {
      throw refuse(
        "tokens",
        `${wrong} is no token id: they go from 0 to ${tokenizer.vocabSize - 1}`,
      );
    }
    return Response.json({ content: tokenizer.decode(body.tokens, { showSpecial: true }) });
  },
};

const renderSchema = z.looseObject({
  model: z.string().nullish(),
  messages: z.array(messageSchema),
  tools: z.array(z.unknown()).nullish(),
  add_generation_prompt: z.boolean().nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
});

export const renderRoute: Route = {
  method: "POST",
  path: "/render",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, renderSchema);
    const chat = chatOf(server.model.named(body.model));
    const { text, tokenIds } = chat.render({
      ...body.chat_template_kwargs,
      messages: toMessages(body.messages, chat.template.source),
      ...(body.tools?.length ? { tools: body.tools } : {}),
      add_generation_prompt: body.add_generation_prompt ?? true,
    });
    return Response.json({ prompt: text, tokenIds: [...tokenIds] });
  },
};
