// /lora: the model's adapters and how much of each an answer gets that names no model.
import { z } from "zod";
import { isScale } from "../../engine/adapter-choice.ts";
import { checkBody, readJson } from "../body.ts";
import { refuse } from "../request-error.ts";
import type { ServedModel } from "../served-model.ts";
import type { Route } from "../server-state.ts";

function list({ id: modelId, client }: ServedModel): Response {
  const adapters = client.facts.adapters.map(({ name, scale }, id) => {
    return { id, name, model: `${modelId}:${name}`, scale };
  });
  return Response.json({ adapters });
}

export const adaptersRoute: Route = {
  method: "GET",
  path: "/lora",
  handle: (_, server) => list(server.model.get()),
};

const entrySchema = z.looseObject({
  /** Its number in the list, or its name. */
  id: z.number().int().min(0).optional(),
  name: z.string().optional(),
  scale: z.number().refine(isScale, "expected a number that fits into 32 bits"),
});

const scalesSchema = z.looseObject({ adapters: z.array(entrySchema) });

/** Changes the scales that are named; others stay. The list alone is a body too. */
export const setAdaptersRoute: Route = {
  method: "POST",
  path: "/lora",
  async handle(c, server) {
    const model = server.model.get();
    const value = await readJson(c.req.raw, server.options.maxBodyBytes);
    const given = Array.isArray(value) ? { adapters: value } : value;
    const body = checkBody(given, c.get("exchange"), scalesSchema);
    const adapters = [...model.client.facts.adapters];
    body.adapters.forEach(({ id, name, scale }, index) => {
      const at = id ?? adapters.findIndex((adapter) => adapter.name === name);
      const adapter = adapters[at];
      if (adapter === undefined || (name !== undefined && adapter.name !== name)) {
        const what = name === undefined ? `number ${id ?? "?"}` : `'${name}'`;
        throw refuse(`adapters[${index}]`, `there is no adapter ${what}: GET /lora lists them`);
      }
      adapters[at] = { ...adapter, scale };
    });
    await model.client.setAdapters(adapters);
    return list(model);
  },
};
