// Reads the JSON body of a request: bounded in size, checked against a schema. Schemas are exact
// about the fields they know; fields that nobody knows are let pass but named in a header.
import type { z } from "zod";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";

/** The header that names the fields of a body that have no meaning here. */
export const ignoredHeader = "X-Tinfer-Ignored";

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  const tooLarge = () =>
    new RequestError(413, `the body is larger than ${maxBytes} bytes`, {
      code: "body_too_large",
      hint: "the operator can raise the limit with --max-body",
    });
  if (Number(request.headers.get("Content-Length") ?? 0) > maxBytes) throw tooLarge();
  const parts: Uint8Array[] = [];
  let numBytes = 0;
  // A chunked body has no length up front: count while reading.
  for await (const part of request.body ?? []) {
    numBytes += part.length;
    if (numBytes > maxBytes) throw tooLarge();
    parts.push(part);
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

function parseJson(bytes: Uint8Array): unknown {
  if (bytes.length === 0) {
    throw new RequestError(400, "the body is empty", { hint: "send a JSON object" });
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new RequestError(400, `the body is not valid JSON: ${reason}`, { code: "invalid_json" });
  }
}

/** Path of a field as people write it: `messages[1].content`. */
function fieldName(path: readonly PropertyKey[]): string {
  let name = "";
  for (const part of path) {
    if (typeof part === "number") name += `[${part}]`;
    else name += name === "" ? String(part) : `.${String(part)}`;
  }
  return name;
}

/** The deepest complaint: of a union's branches the one that got furthest. */
function deepestIssue(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const candidates = issue.errors
    .flatMap((issues) => issues.slice(0, 1))
    .map((inner) => deepestIssue({ ...inner, path: [...issue.path, ...inner.path] }))
    .filter((inner) => inner.path.length > issue.path.length);
  return candidates.toSorted((a, b) => b.path.length - a.path.length)[0] ?? issue;
}

function schemaError(error: z.ZodError): RequestError {
  const issue = deepestIssue(error.issues[0]!);
  const field = fieldName(issue.path);
  const where = field === "" ? "the body" : field;
  return new RequestError(400, `${where}: ${issue.message}`, { field, code: "invalid_value" });
}

/** The body as JSON, not checked. */
export async function readJson(request: Request, maxBytes: number): Promise<unknown> {
  return parseJson(await readBytes(request, maxBytes));
}

/** The checked body; notes in the exchange which of its fields have no meaning here. */
export async function readBody<Shape extends z.ZodRawShape>(
  request: Request,
  exchange: Exchange,
  maxBytes: number,
  schema: z.ZodObject<Shape, z.core.$loose>,
): Promise<z.infer<z.ZodObject<Shape, z.core.$loose>>> {
  return checkBody(await readJson(request, maxBytes), exchange, schema);
}

export function checkBody<Shape extends z.ZodRawShape>(
  value: unknown,
  exchange: Exchange,
  schema: z.ZodObject<Shape, z.core.$loose>,
): z.infer<z.ZodObject<Shape, z.core.$loose>> {
  const result = schema.safeParse(value);
  if (!result.success) throw schemaError(result.error);
  noteUnknownFields(exchange, Object.keys(result.data), schema.shape);
  return result.data;
}

/** Adds the names that `known` does not have to the exchange's ignored ones. */
export function noteUnknownFields(
  exchange: Exchange,
  names: readonly string[],
  known: Readonly<Record<string, unknown>>,
  prefix = "",
): void {
  const unknown = names.filter((name) => !Object.hasOwn(known, name));
  if (unknown.length === 0) return;
  const added = unknown.map((name) => prefix + name);
  exchange.record.ignored = [...(exchange.record.ignored ?? []), ...added];
}

/** A header value holds printable ASCII only and should stay short. */
export function ignoredHeaderValue(names: readonly string[]): string {
  return names
    .join(", ")
    .replace(/[^\x20-\x7e]/g, "?")
    .slice(0, 500);
}
