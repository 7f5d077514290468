// POST /api/generate: one prompt through the chat template, or with `raw` as it is.
import { z } from "zod";
import { promptLimit } from "../../engine/context-limits.ts";
import { readBody } from "../body.ts";
import { refuse } from "../request-error.ts";
import { toStopStrings } from "../request-fields.ts";
import { chatOf, type ServedModel } from "../served-model.ts";
import type { Route } from "../server-state.ts";
import { answer, loaded } from "./answer-shapes.ts";
import { refuseUnsupported, sharedFields, thinkVariables, toLimits } from "./options.ts";

const generateSchema = z.looseObject({
  ...sharedFields,
  prompt: z.string().nullish(),
  system: z.string().nullish(),
  raw: z.boolean().nullish(),
  template: z.string().nullish(),
  suffix: z.string().nullish(),
  images: z.array(z.unknown()).nullish(),
  context: z.array(z.number()).nullish(),
});

type GenerateBody = z.infer<typeof generateSchema>;

function refuseFields(body: GenerateBody): void {
  if (body.template) {
    throw refuse("template", "a template in a request is not supported", "use raw: true instead");
  }
  if (body.suffix) throw refuse("suffix", "not supported yet");
  if (body.images?.length) throw refuse("images", "images are not supported yet");
  if (body.context?.length) {
    throw refuse("context", "not supported: it is Ollama's deprecated form", "use /api/chat");
  }
  if (body.raw && body.system) throw refuse("system", "raw: true sends the prompt alone");
  if (body.raw && body.think) throw refuse("think", "raw: true sends the prompt alone");
}

function readPrompt(model: ServedModel, body: GenerateBody, prompt: string) {
  const limit = promptLimit(model.client.facts);
  if (body.raw) {
    return { tokenIds: model.text.tokenizer.encode(prompt, { limit }), splitter: undefined };
  }
  const chat = chatOf(model);
  const system = body.system ? [{ role: "system", content: body.system }] : [];
  const variables = {
    ...thinkVariables(body.think, chat, model.id),
    messages: [...system, { role: "user", content: prompt }],
  };
  const rendered = chat.render(variables, limit);
  return { tokenIds: rendered.tokenIds, splitter: rendered.createSplitter() };
}

function placeText(response: string, thinking: string) {
  return { response, ...(thinking === "" ? {} : { thinking }) };
}

export const generateRoute: Route = {
  method: "POST",
  path: "/api/generate",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const limit = server.options.maxBodyBytes;
    const body = await readBody(c.req.raw, exchange, limit, generateSchema);
    const model = server.model.named(body.model);
    refuseUnsupported(body);
    refuseFields(body);
    if (!body.prompt) return loaded(model, placeText);
    const prompt = readPrompt(model, body, body.prompt);
    const request = {
      ...toLimits(server, model, body, prompt.tokenIds.length),
      ...prompt,
      stopStrings: toStopStrings(body.options?.stop),
      ignoreEos: false,
      wantsLogprobs: body.logprobs ?? false,
    };
    const form = { stream: body.stream ?? true, place: placeText };
    return answer(server, model, exchange, request, form);
  },
};
