// The route table, and what every request passes on its way: checks, the log, errors.
import { type Context, Hono } from "hono";
import { dialectOf, errorResponse } from "./dialect.ts";
import { Exchange } from "./exchange.ts";
import { ollamaChatRoute } from "./ollama/chat.ts";
import { embeddingsRoute, embedRoute } from "./ollama/embed.ts";
import { generateRoute } from "./ollama/generate.ts";
import { psRoute, showRoute, tagsRoute, versionRoute } from "./ollama/models.ts";
import { chatRoute } from "./openai/chat.ts";
import { completionRoute } from "./openai/completions.ts";
import { embeddingRoute } from "./openai/embeddings.ts";
import { modelRoute, modelsRoute } from "./openai/models.ts";
import { adaptersRoute, setAdaptersRoute } from "./own/adapters.ts";
import { healthRoute, metricsRoute, ollamaHealthRoute } from "./own/health.ts";
import { pageRoute } from "./own/page.ts";
import { rerankRoutes } from "./own/rerank.ts";
import { detokenizeRoute, renderRoute, tokenizeRoute } from "./own/tokens.ts";
import { quantizeRoute, quantizeStateRoute } from "./own/weights.ts";
import { RequestError, toRequestError } from "./request-error.ts";
import { checkApiKey, checkHost, checkOrigin } from "./security.ts";
import type { Route, ServerEnv, ServerState } from "./server-state.ts";
import { ignoredHeader, ignoredHeaderValue } from "./unknown-fields.ts";

const routes: readonly Route[] = [
  pageRoute,
  healthRoute,
  metricsRoute,
  tokenizeRoute,
  detokenizeRoute,
  renderRoute,
  adaptersRoute,
  setAdaptersRoute,
  chatRoute,
  completionRoute,
  embeddingRoute,
  ...rerankRoutes,
  quantizeRoute,
  quantizeStateRoute,
  modelsRoute,
  modelRoute,
  ollamaChatRoute,
  generateRoute,
  tagsRoute,
  showRoute,
  psRoute,
  versionRoute,
  embedRoute,
  embeddingsRoute,
  ollamaHealthRoute,
];

const truncatedHeader = "X-Tinfer-Truncated";

/** Headers that pages of allowed origins may read and send. */
const corsHeaders = {
  "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
  "Access-Control-Allow-Headers": "*, Authorization",
  "Access-Control-Expose-Headers": `${ignoredHeader}, ${truncatedHeader}, X-Request-Id`,
  "Access-Control-Max-Age": "600",
};

/** Metrics count known routes only: paths are the clients' to choose. */
function routeLabel(c: Context<ServerEnv>, route: Route | undefined): string {
  return route?.path ?? `${c.req.method === "OPTIONS" ? "preflight" : "unknown"}`;
}

export function createApp(server: ServerState): Hono<ServerEnv> {
  const app = new Hono<ServerEnv>();
  const { options } = server;
  for (const route of routes) {
    // HEAD goes the way of GET in Hono.
    app.on(route.method, route.path, (c) => answer(c, server, route));
  }
  app.all("*", (c) => answer(c, server, undefined));

  async function answer(c: Context<ServerEnv>, state: ServerState, route: Route | undefined) {
    const exchange = new Exchange(c.req.raw, c.req.path, (done) => {
      state.exchanges.delete(done);
      state.metrics.countRequest(routeLabel(c, route), done.record.status, done.record.ms);
      options.log(done.record);
    });
    state.exchanges.add(exchange);
    c.set("exchange", exchange);
    const response = await respond(c, state, route);
    const isPiecewise = exchange.isStreaming;
    if (!isPiecewise) exchange.record.status = response.status;
    response.headers.set("X-Request-Id", exchange.id);
    const { ignored } = exchange.record;
    if (ignored !== undefined) response.headers.set(ignoredHeader, ignoredHeaderValue(ignored));
    if (exchange.truncatedTokens > 0) {
      response.headers.set(truncatedHeader, String(exchange.truncatedTokens));
    }
    if (!isPiecewise) exchange.finish();
    return response;
  }
  return app;
}

async function respond(c: Context<ServerEnv>, server: ServerState, route: Route | undefined) {
  const { options } = server;
  const { headers } = c.req.raw;
  const exchange = c.get("exchange");
  let allowedOrigin: string | undefined;
  let response: Response;
  try {
    checkHost(headers, options.host);
    allowedOrigin = checkOrigin(headers, options.corsOrigins);
    if (c.req.method === "OPTIONS") response = new Response(null, { status: 204 });
    else {
      if (route?.isPublic === undefined) checkApiKey(headers, options.apiKeys);
      response = await (route === undefined ? refuseRoute(c) : route.handle(c, server));
    }
  } catch (error) {
    server.logBug(error);
    const known = toRequestError(error);
    exchange.record.error = known.message;
    response = errorResponse(dialectOf(c.req.path), known);
  }
  if (allowedOrigin !== undefined) {
    response.headers.set("Access-Control-Allow-Origin", allowedOrigin);
    for (const [name, value] of Object.entries(corsHeaders)) response.headers.set(name, value);
    if (allowedOrigin !== "*") response.headers.set("Vary", "Origin");
  }
  return response;
}

function takesPath(route: Route, path: string): boolean {
  const [fixed, pattern] = route.path.split(":");
  if (pattern === undefined) return route.path === path;
  return path.startsWith(fixed!) && path.length > fixed!.length;
}

/** 405 for a known path with another method, else 404. */
function refuseRoute(c: Context<ServerEnv>): never {
  const { method, path } = c.req;
  const siblings = routes.filter((route) => takesPath(route, path));
  const methods = [...new Set(siblings.map((sibling) => sibling.method))];
  if (methods.length > 0) {
    throw new RequestError(405, `${path} does not take ${method}`, {
      code: "method_not_allowed",
      hint: `use ${methods.join(" or ")}`,
      allowedMethods: methods.flatMap((name) => (name === "GET" ? [name, "HEAD"] : [name])),
    });
  }
  throw new RequestError(404, `there is no route ${method} ${path}`, {
    code: "route_not_found",
    hint: "see /v1/…, /api/…, /health, /metrics; the web chat is at /",
  });
}
