// Reads the JSON body of a request: bounded in size, checked against a schema. Schemas are exact
// about the fields they know; fields that nobody knows are let pass but named in a header.
import type { z } from "zod";
import type { Exchange } from "./exchange.ts";
import { invalidField, RequestError } from "./request-error.ts";
import { noteUnknownFields } from "./unknown-fields.ts";

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  const encoding = request.headers.get("Content-Encoding") ?? "";
  if (!/^(identity)?$/i.test(encoding)) {
    throw new RequestError(415, `a body in Content-Encoding ${encoding} is not supported`, {
      code: "unsupported_encoding",
      hint: "send it as it is, without that header",
    });
  }
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
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new RequestError(400, `the body is not valid JSON: ${reason}`, { code: "invalid_json" });
  }
  // Half a character can only come from an escape.
  if (/\\u[dD][89a-fA-F]/.test(text)) refuseLoneSurrogates(value);
  return value;
}

/** Throws for a text with half a character: the model would read another one, U+FFFD. */
function refuseLoneSurrogates(body: unknown): void {
  // Not recursive: bodies may nest deeper than the stack.
  const waiting = [{ value: body, field: "" }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { value, field } = next;
    if (typeof value === "string" && !value.isWellFormed()) {
      throw invalidField(field, "the text has half of a surrogate pair, which is no character");
    }
    if (typeof value !== "object" || value === null) continue;
    const parts = Array.isArray(value) ? value.entries() : Object.entries(value);
    for (const [part, inner] of parts) waiting.push({ value: inner, field: partOf(field, part) });
  }
}

function partOf(field: string, part: PropertyKey): string {
  if (typeof part === "number") return `${field}[${part}]`;
  return field === "" ? String(part) : `${field}.${String(part)}`;
}

/** Path of a field as people write it: `messages[1].content`. */
function fieldName(path: readonly PropertyKey[]): string {
  return path.reduce(partOf, "");
}

type Issue = z.core.$ZodIssue;

/** A branch of a union that complains of this was meant for other values. */
function isOtherKind(issue: Issue): boolean {
  if (issue.code === "invalid_value") return true;
  return issue.code === "invalid_type" && issue.expected !== "int";
}

/** Whether `path` lies behind `other` in the text of a body. */
function isFurther(path: Issue["path"], other: Issue["path"]): boolean {
  const at = path.findIndex((part, index) => part !== other[index]);
  return at >= other.length || Number(path[at]) > Number(other[at]);
}

/** Of a union's branches the complaint of the one that got furthest, if that is clearly one. */
function deepestIssue(issue: Issue): Issue {
  if (issue.code !== "invalid_union") return issue;
  const branches = issue.errors
    .flatMap((issues) => issues.slice(0, 1))
    .map((inner) => deepestIssue({ ...inner, path: [...issue.path, ...inner.path] }));
  const furthest = branches.filter(({ path }) => !branches.some((b) => isFurther(b.path, path)));
  const ofThisKind = furthest.find((branch) => !isOtherKind(branch));
  return ofThisKind ?? (furthest.length === 1 ? furthest[0]! : issue);
}

function schemaError(error: z.ZodError): RequestError {
  const { path, message } = deepestIssue(error.issues[0]!);
  return invalidField(fieldName(path), message);
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
  noteUnknownFields(exchange, schema, result.data);
  return result.data;
}
