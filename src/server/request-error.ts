// What went wrong with a request, in HTTP terms, whatever the dialect: a status, a message and
// what to do next. Dialects only choose the shape of the body.
import { type ErrorCode, TinferError } from "../core/errors.ts";

export interface RequestErrorOptions {
  /** The next step for a person. */
  readonly hint?: string;
  /** The field of the body at fault. */
  readonly field?: string;
  /** For programs, e.g. "model_not_found". */
  readonly code?: string;
  readonly retryAfterSeconds?: number;
  /** What the path takes instead of the request's method. */
  readonly allowedMethods?: readonly string[];
}

export class RequestError extends Error {
  readonly status: number;
  readonly hint: string | undefined;
  readonly field: string | undefined;
  readonly code: string | undefined;
  readonly retryAfterSeconds: number | undefined;
  readonly allowedMethods: readonly string[] | undefined;

  constructor(status: number, message: string, options: RequestErrorOptions = {}) {
    super(message);
    this.status = status;
    this.hint = options.hint;
    this.field = options.field;
    this.code = options.code;
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.allowedMethods = options.allowedMethods;
  }
}

/** 499 is what proxies log for "the client has gone"; nobody reads it. */
const statuses: Readonly<Record<ErrorCode, number>> = {
  usage: 400,
  unsupported: 400,
  contextOverflow: 400,
  template: 400,
  notFound: 404,
  overloaded: 429,
  cancelled: 499,
  outOfMemory: 503,
  unreadable: 500,
  invalidFile: 500,
  noSpace: 500,
  network: 500,
  checksum: 500,
  native: 500,
};

const codes: Partial<Readonly<Record<ErrorCode, string>>> = {
  contextOverflow: "context_length_exceeded",
  overloaded: "rate_limit_exceeded",
};

/** The HTTP form of any error; what is not an operating error is a bug and becomes a 500. */
export function toRequestError(error: unknown): RequestError {
  if (error instanceof RequestError) return error;
  if (error instanceof TinferError) {
    const { code, hint } = error;
    return new RequestError(statuses[code], error.message, {
      code: codes[code] ?? code,
      ...(hint === undefined ? {} : { hint }),
      ...(code === "overloaded" || code === "outOfMemory" ? { retryAfterSeconds: 1 } : {}),
    });
  }
  return new RequestError(500, "an internal error of tinfer", {
    code: "internal",
    hint: "the server's log has the details; please report it",
  });
}

/** A field, "" for the body itself, with a value that it cannot have. */
export function invalidField(field: string, reason: string): RequestError {
  const message = `${field === "" ? "the body" : field}: ${reason}`;
  return new RequestError(400, message, { field, code: "invalid_value" });
}

/** A request that is understood but cannot be honoured. */
export function refuse(field: string, reason: string, hint?: string): RequestError {
  return new RequestError(400, `${field}: ${reason}`, {
    field,
    code: "unsupported",
    ...(hint === undefined ? {} : { hint }),
  });
}

/** Message and next step as one text, for bodies with room for one text. */
export function messageOf({ message, hint }: RequestError): string {
  return hint === undefined ? message : `${message} (${hint})`;
}
