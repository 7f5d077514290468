// Token ids on the command line: "1,2,3".
import { TinferError } from "../core/errors.ts";

export function parseTokenIds(text: string): Int32Array {
  const parts = text.trim().split(/\s*,\s*|\s+/);
  const wrong = parts.find((part) => !/^\d{1,9}$/.test(part));
  if (wrong === undefined) return Int32Array.from(parts, Number);
  throw new TinferError("usage", `'${wrong}' is not a token id`, {
    hint: "give ids separated by commas, e.g. 1,403,407",
  });
}
