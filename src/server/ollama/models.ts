// What Ollama's clients ask about models: /api/tags, /api/show, /api/ps, /api/version.
import { z } from "zod";
import { readBody } from "../body.ts";
import { RequestError } from "../request-error.ts";
import type { ServedModel } from "../served-model.ts";
import type { Route } from "../server-state.ts";

function details({ client, parentId }: ServedModel) {
  const { architecture, parameters, mainType } = client.facts;
  return {
    parent_model: parentId ?? "",
    format: "gguf",
    family: architecture,
    families: [architecture],
    parameter_size: formatCount(parameters),
    quantization_level: mainType.toUpperCase(),
  };
}

/** 3.2B, 656K: three digits and the letter of the thousand. */
function formatCount(count: number): string {
  let value = count;
  for (const letter of ["", "K", "M", "B"]) {
    if (value < 999.5) return `${Number(value.toPrecision(3))}${letter}`;
    value /= 1000;
  }
  return `${Number(value.toPrecision(3))}T`;
}

function identity(model: ServedModel) {
  const { id, digest, bytes } = model;
  return { name: id, model: id, size: bytes, digest, details: details(model) };
}

export const tagsRoute: Route = {
  method: "GET",
  path: "/api/tags",
  handle(_, server) {
    const models = server.model.all().map((model) => {
      return { ...identity(model), modified_at: model.modifiedAt.toISOString() };
    });
    return Response.json({ models });
  },
};

export const psRoute: Route = {
  method: "GET",
  path: "/api/ps",
  async handle(_, server) {
    const model = server.model.peek();
    if (model === undefined) return Response.json({ models: [] });
    const { facts } = model.client;
    const { embeddingBytes } = await model.client.status();
    const sessions = facts.kvBytes + facts.arenaBytes + facts.scratchBytes + embeddingBytes;
    const weights = facts.mappedWeightBytes + facts.derivedWeightBytes + facts.tableBytes;
    return Response.json({
      models: [
        {
          ...identity(model),
          size: weights + sessions,
          size_vram: 0,
          context_length: facts.maxContextLen,
          // It stays until the server ends; Ollama's own word for that is a far year.
          expires_at: "2318-01-01T00:00:00Z",
        },
      ],
    });
  },
};

const showSchema = z.looseObject({
  model: z.string().nullish(),
  name: z.string().nullish(),
  verbose: z.boolean().nullish(),
});

/** Metadata as JSON; arrays are long and come with `verbose` only, as in Ollama. */
function modelInfo({ text }: ServedModel, verbose: boolean): Record<string, unknown> {
  const entries: [string, unknown][] = [];
  for (const [key, value] of text.header.metadata) {
    if (key === "tokenizer.chat_template") continue;
    if (typeof value === "bigint") entries.push([key, String(value)]);
    else if (typeof value !== "object") entries.push([key, value]);
    else if (!verbose) entries.push([key, null]);
    else if ("bytesAt" in value) entries.push([key, value.toArray()]);
    else entries.push([key, Array.from(value as ArrayLike<unknown>, jsonNumber)]);
  }
  return Object.fromEntries(entries);
}

function jsonNumber(value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

export const showRoute: Route = {
  method: "POST",
  path: "/api/show",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, showSchema);
    const name = body.model ?? body.name;
    if (name == null) throw new RequestError(400, "model: is missing", { field: "model" });
    const model = server.model.named(name);
    const { chat, text } = model;
    const template = "template" in chat ? chat.template.source : "";
    const { reasoning } = "template" in chat ? chat : { reasoning: undefined };
    return Response.json({
      modelfile: "",
      parameters: "",
      template,
      license: text.header.metadata.get("general.license") ?? "",
      details: details(model),
      model_info: modelInfo(model, body.verbose ?? false),
      capabilities: [
        ...(model.client.facts.isEncoder ? [] : ["completion"]),
        "embedding",
        ...(reasoning === undefined ? [] : ["thinking"]),
      ],
      modified_at: model.modifiedAt.toISOString(),
    });
  },
};

export const versionRoute: Route = {
  method: "GET",
  path: "/api/version",
  handle: (_, server) => Response.json({ version: server.options.version }),
};
