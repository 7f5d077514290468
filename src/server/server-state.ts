// What the routes of one running server share.
import type { Context } from "hono";
import type { SamplingParameters } from "../sampling/parameters.ts";
import type { Admission } from "./admission.ts";
import type { Exchange, LogRecord } from "./exchange.ts";
import type { Metrics } from "./metrics.ts";
import type { ModelHost, ModelSource } from "./served-model.ts";

export interface ServerOptions {
  readonly host: string;
  /** 0 = any free port. */
  readonly port: number;
  readonly model: ModelSource;
  /** Keys that clients may show; none: everyone is let in. */
  readonly apiKeys: readonly string[];
  /** Origins of web pages that may call; "*" = all; none: only the server's own page. */
  readonly corsOrigins: readonly string[];
  readonly maxBodyBytes: number;
  /** Generations that may wait for a place in the batch. */
  readonly maxWaiting: number;
  /** What requests get that name nothing. */
  readonly sampling: SamplingParameters;
  readonly maxTokens: number | undefined;
  readonly logPrompts: boolean;
  /** Of tinfer. */
  readonly version: string;
  /** Receives the request log, one record per request. */
  log(record: LogRecord): void;
  /** Receives errors that are bugs. */
  logError(error: unknown): void;
}

export interface ServerState {
  readonly options: ServerOptions;
  readonly model: ModelHost;
  readonly metrics: Metrics;
  readonly admission: Admission;
  /** Requests that are under way. */
  readonly exchanges: Set<Exchange>;
  /** Reports an error if it is a bug; wrong requests and operating errors are not. */
  readonly logBug: (error: unknown) => void;
}

export interface ServerEnv {
  Variables: { exchange: Exchange };
}

export interface Route {
  readonly method: "GET" | "POST";
  readonly path: string;
  /** Answers without an API key. */
  readonly isPublic?: true;
  handle(context: Context<ServerEnv>, server: ServerState): Response | Promise<Response>;
}
