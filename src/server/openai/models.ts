// GET /v1/models and /v1/models/ID.
import type { ServedModel } from "../served-model.ts";
import type { Route } from "../server-state.ts";
import { unixSeconds } from "./answer-shapes.ts";

function describe({ id, parentId, modifiedAt, client }: ServedModel) {
  const { maxContextLen, trainedContextLen, architecture, mainType, parameters } = client.facts;
  return {
    id,
    object: "model",
    created: unixSeconds(modifiedAt),
    owned_by: "tinfer",
    ...(parentId === undefined ? {} : { parent: parentId }),
    meta: { architecture, type: mainType, parameters, maxContextLen, trainedContextLen },
  };
}

export const modelsRoute: Route = {
  method: "GET",
  path: "/v1/models",
  handle: (_, server) => Response.json({ object: "list", data: server.model.all().map(describe) }),
};

/** Names may contain slashes, hence the pattern. */
export const modelRoute: Route = {
  method: "GET",
  path: "/v1/models/:id{.+}",
  handle: (c, server) => Response.json(describe(server.model.named(c.req.param("id")))),
};
