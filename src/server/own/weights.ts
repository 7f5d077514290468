// /v1/models/quantize: the model's weights in another type while it goes on answering; GET says
// how far that is.
import { z } from "zod";
import { readBody } from "../body.ts";
import type { ServedModel } from "../served-model.ts";
import type { Route } from "../server-state.ts";

const schema = z.looseObject({
  model: z.string().nullish(),
  /** A mix such as "q4_0", or "original" for the weights as the file has them. */
  type: z.string(),
});

async function describe({ id, client }: ServedModel): Promise<Response> {
  const { mainType, weightBytes } = client.facts;
  const { weightChange } = await client.status();
  const change = weightChange && {
    type: weightChange.type,
    done_bytes: weightChange.doneBytes,
    /** 0: not yet known. */
    total_bytes: weightChange.totalBytes,
  };
  return Response.json({
    ...{ model: id, type: mainType, weight_bytes: weightBytes },
    change: change ?? null,
  });
}

export const quantizeStateRoute: Route = {
  method: "GET",
  path: "/v1/models/quantize",
  handle: (_, server) => describe(server.model.get()),
};

export const quantizeRoute: Route = {
  method: "POST",
  path: "/v1/models/quantize",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, schema);
    const model = server.model.named(body.model);
    await model.client.setWeightType(body.type);
    return describe(model);
  },
};
