// The fields of a body that have no meaning here: they are let pass, but named in a header.
import type { z } from "zod";
import type { Exchange } from "./exchange.ts";

/** The header that names them. */
export const ignoredHeader = "X-Tinfer-Ignored";

/** Proxies bound what all headers take together. */
const maxHeaderLen = 500;

/** Notes in the exchange which fields of `body` its schema does not know, each name once. */
export function noteUnknownFields(exchange: Exchange, schema: z.ZodType, body: unknown): void {
  const names = new Set<string>();
  collect(schema, body, "", names);
  if (names.size > 0) exchange.record.ignored = [...names];
}

/** Adds names that objects anywhere in `value` have and their schemas do not: `messages[].id`. */
function collect(schema: z.core.$ZodType, value: unknown, path: string, names: Set<string>): void {
  if (typeof value !== "object" || value === null) return;
  const { def } = (schema as z.core.$ZodTypes)._zod;
  if (def.type === "optional" || def.type === "nullable") {
    collect(def.innerType, value, path, names);
  }
  if (def.type === "union") {
    for (const option of def.options) collect(option, value, path, names);
  }
  if (def.type === "array" && Array.isArray(value)) {
    for (const item of value) collect(def.element, item, `${path}[]`, names);
  }
  if (def.type !== "object" || Array.isArray(value)) return;
  const prefix = path === "" ? "" : `${path}.`;
  for (const [name, inner] of Object.entries(value)) {
    const known = Object.hasOwn(def.shape, name) ? def.shape[name] : undefined;
    if (known !== undefined) collect(known, inner, prefix + name, names);
    // Null counts as absent: clients send back messages of answers with all their empty fields.
    else if (inner !== null) names.add(prefix + name);
  }
}

/** A header value holds printable ASCII only; what is too long says how many names are missing. */
export function ignoredHeaderValue(names: readonly string[]): string {
  let value = "";
  for (const [index, name] of names.entries()) {
    const printable = name.replace(/[^\x20-\x7e]/g, "?");
    const longer = index === 0 ? printable : `${value}, ${printable}`;
    if (longer.length > maxHeaderLen) return `${value}, +${names.length - index} more`;
    value = longer;
  }
  return value;
}
