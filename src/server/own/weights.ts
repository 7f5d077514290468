// POST /v1/models/quantize: the model's weights in another type while it goes on answering.
import { z } from "zod";
import { readBody } from "../body.ts";
import type { Route } from "../server-state.ts";

const schema = z.looseObject({
  model: z.string().nullish(),
  /** A mix such as "q4_0", or "original" for the weights as the file has them. */
  type: z.string(),
});

export const quantizeRoute: Route = {
  method: "POST",
  path: "/v1/models/quantize",
  async handle(c, server) {
    const exchange = c.get("exchange");
    const body = await readBody(c.req.raw, exchange, server.options.maxBodyBytes, schema);
    const { id, client } = server.model.named(body.model);
    await client.setWeightType(body.type);
    const { mainType, weightBytes } = client.facts;
    return Response.json({ model: id, type: mainType, weight_bytes: weightBytes });
  },
};
