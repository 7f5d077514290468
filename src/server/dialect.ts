// The shape of an error body in each dialect. A route's dialect follows from its path.
import { messageOf, type RequestError } from "./request-error.ts";

export type Dialect = "openai" | "ollama";

export function dialectOf(path: string): Dialect {
  return path.startsWith("/api/") ? "ollama" : "openai";
}

const openAiTypes: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  429: "rate_limit_error",
};

/** The body that says what is wrong, as clients of the dialect read it. */
export function errorBody(dialect: Dialect, error: RequestError): object {
  const message = messageOf(error);
  if (dialect === "ollama") return { error: message };
  const fallback = error.status < 500 ? "invalid_request_error" : "server_error";
  const type = openAiTypes[error.status] ?? fallback;
  return { error: { message, type, param: error.field ?? null, code: error.code ?? null } };
}

/** Ollama's clients know 503 where OpenAI's know 429. */
function statusOf(dialect: Dialect, { status }: RequestError): number {
  return dialect === "ollama" && status === 429 ? 503 : status;
}

export function errorResponse(dialect: Dialect, error: RequestError): Response {
  const headers = new Headers();
  if (error.retryAfterSeconds !== undefined) {
    headers.set("Retry-After", String(error.retryAfterSeconds));
  }
  if (error.allowedMethods !== undefined) headers.set("Allow", error.allowedMethods.join(", "));
  if (error.status === 401) headers.set("WWW-Authenticate", "Bearer");
  return Response.json(errorBody(dialect, error), { status: statusOf(dialect, error), headers });
}
