// /health for load balancers, /metrics for Prometheus.
import type { Route } from "../server-state.ts";

/** 200 once the model answers; 503 while it loads. Says nothing about the model: it is public. */
const handleHealth: Route["handle"] = (_, server) => {
  const { state } = server.model;
  if (state === "ready") return Response.json({ status: "ok" });
  const headers = { "Retry-After": "1" };
  return Response.json({ status: state }, { status: 503, headers });
};

export const healthRoute: Route = {
  method: "GET",
  path: "/health",
  isPublic: true,
  handle: handleHealth,
};

export const ollamaHealthRoute: Route = { ...healthRoute, path: "/api/health" };

export const metricsRoute: Route = {
  method: "GET",
  path: "/metrics",
  async handle(_, { metrics, model }) {
    const status = await model.peek()?.client.status();
    const headers = { "Content-Type": metrics.contentType };
    return new Response(await metrics.render(status), { headers });
  },
};
