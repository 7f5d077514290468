// Token ids on the command line: "1,2,3".
import { TinferError } from "../core/errors.ts";

export function parseTokenIds(text: string): Int32Array {
  const parts = text.split(/[\s,]+/).filter((part) => part !== "");
  const wrong = parts.find((part) => !/^\d{1,9}$/.test(part));
  if (parts.length > 0 && wrong === undefined) return Int32Array.from(parts, Number);
  throw new TinferError("usage", `'${wrong ?? text}' is not a token id`, {
    hint: "give ids separated by commas, e.g. 1,403,407",
  });
}
