// The running server: the listening socket, the model behind it, and how both end.
import { TinferError } from "../core/errors.ts";
import { Admission } from "./admission.ts";
import { createApp } from "./app.ts";
import { Metrics } from "./metrics.ts";
import { RequestError } from "./request-error.ts";
import { ModelHost, type ServedModel } from "./served-model.ts";
import type { ServerOptions, ServerState } from "./server-state.ts";

export interface RunningServer {
  readonly url: string;
  readonly port: number;
  /** Resolves when the model answers; rejects with the loader's error. */
  readonly ready: Promise<ServedModel>;
  /** Takes no more requests, lets running ones end for `graceMs`, then cancels them. */
  stop(graceMs: number): Promise<void>;
}

/** Listens at once and loads the model meanwhile: /health says 503 until it is ready. */
export function startServer(options: ServerOptions): RunningServer {
  const model = new ModelHost(options.model);
  const server: ServerState = {
    options,
    model,
    metrics: new Metrics(model.id),
    admission: new Admission(() => options.model.options.maxSequences, options.maxWaiting),
    exchanges: new Set(),
    logBug(error) {
      const isKnown = error instanceof TinferError || error instanceof RequestError;
      if (!isKnown) options.logError(error);
    },
  };
  const listener = listen(server);
  const ready = model.load(options.model);
  // Who does not wait for `ready` learns of a failure from /health.
  ready.catch(() => {});
  return {
    url: listener.url.href.replace(/\/$/, ""),
    port: listener.port!,
    ready,
    async stop(graceMs) {
      const drained = listener.stop();
      await Promise.race([drained, whenIdle(server, graceMs)]);
      const reason = new RequestError(503, "the server is stopping", { code: "stopping" });
      for (const exchange of [...server.exchanges]) exchange.abort(reason);
      await whenIdle(server, 1000);
      await listener.stop(true);
      await ready.catch(() => undefined);
      await model[Symbol.asyncDispose]();
    },
  };
}

function listen(server: ServerState) {
  const { host, port } = server.options;
  const app = createApp(server);
  try {
    return Bun.serve({
      hostname: host,
      port,
      fetch: app.fetch,
      // Silence is normal while a long prompt is read; streams are kept alive by pings.
      idleTimeout: 0,
      // body.ts measures, and answers in the client's dialect. Bun keeps nothing of a body that
      // is not read, so that large ones take no memory.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
    });
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "EADDRINUSE") {
      throw new TinferError("usage", `port ${port} on ${host} is taken by another program`, {
        hint: "choose another one with --port, e.g. --port 11435, or 0 for any free one",
        cause: error,
      });
    }
    const reason = error instanceof Error ? error.message : String(error);
    throw new TinferError("usage", `cannot listen on ${host}:${port}: ${reason}`, {
      hint: "--host must be an address of this machine",
      cause: error,
    });
  }
}

/** Resolves when no request is under way, or after `ms`. */
async function whenIdle({ exchanges }: ServerState, ms: number): Promise<void> {
  const end = performance.now() + ms;
  while (exchanges.size > 0 && performance.now() < end) await Bun.sleep(10);
}
