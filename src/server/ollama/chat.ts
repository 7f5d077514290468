// POST /api/chat.
import { z } from "zod";
import { promptLimit } from "../../engine/context-limits.ts";
import type { ChatMessage } from "../../template/messages.ts";
import { readBody } from "../body.ts";
import { refuse } from "../request-error.ts";
import { contentText, toStopStrings } from "../request-fields.ts";
import { chatOf } from "../served-model.ts";
import type { Route } from "../server-state.ts";
import { answer, loaded } from "./answer-shapes.ts";
import { refuseUnsupported, sharedFields, thinkVariables, toLimits } from "./options.ts";

const messageSchema = z.looseObject({
  role: z.enum(["system", "user", "assistant", "tool"]),
  content: z.string().nullish(),
  thinking: z.string().nullish(),
  images: z.array(z.unknown()).nullish(),
  tool_calls: z.array(z.unknown()).nullish(),
});

const chatSchema = z.looseObject({
  ...sharedFields,
  messages: z.array(messageSchema).nullish(),
  tools: z.array(z.unknown()).nullish(),
});

type Message = z.infer<typeof messageSchema>;

function toMessages(given: readonly Message[]): ChatMessage[] {
  return given.map((message, index) => {
    const { role, thinking, images, tool_calls: calls } = message;
    const field = `messages[${index}]`;
    if (images?.length) throw refuse(`${field}.images`, "images are not supported yet");
    if (calls?.length) throw refuse(`${field}.tool_calls`, "tool calls are not supported yet");
    if (role === "tool") throw refuse(`${field}.role`, "tool calls are not supported yet");
    const reasoning = thinking == null ? {} : { reasoning_content: thinking };
    return { role, content: contentText(message, thinking, field), ...reasoning };
  });
}

function placeText(content: string, thinking: string) {
  const reasoning = thinking === "" ? {} : { thinking };
  return { message: { role: "assistant", content, ...reasoning } };
}

export const ollamaChatRoute: Route = {
  method: "POST",
  path: "/api/chat",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, chatSchema);
    const model = server.model.named(body.model);
    refuseUnsupported(body);
    if (body.tools?.length) throw refuse("tools", "not supported yet", "leave the field out");
    if (!body.messages?.length) return loaded(model, placeText);
    const chat = chatOf(model);
    const variables = {
      ...thinkVariables(body.think, chat, model.id),
      messages: toMessages(body.messages),
    };
    const rendered = chat.render(variables, promptLimit(model.client.facts));
    const request = {
      ...toLimits(server, model, body, rendered.tokenIds.length),
      tokenIds: rendered.tokenIds,
      stopStrings: toStopStrings(body.options?.stop),
      ignoreEos: false,
      splitter: rendered.createSplitter(),
      wantsLogprobs: body.logprobs ?? false,
    };
    const form = { stream: body.stream ?? true, place: placeText };
    return answer(server, model, exchange, request, form);
  },
};
