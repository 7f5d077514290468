// From JavaScript values (parsed JSON and such) to template values. JavaScript cannot tell
// 1.0 from 1: whoever needs that passes `PythonFloat`, as `parsePythonJson` does.
import { PythonFloat } from "../python-json.ts";
import { Dict } from "./dict.ts";
import { JinjaError } from "./errors.ts";
import { Float, PythonObject, type Value } from "./values.ts";

/** Nesting of a render variable; deeper input is refused rather than overflowing the stack. */
const maxDepth = 512;

export function fromJavaScript(input: unknown, depth = 0): Value {
  switch (typeof input) {
    case "string":
    case "boolean":
      return input;
    case "number":
      return Number.isSafeInteger(input) && !Object.is(input, -0) ? input : new Float(input);
    case "bigint":
      return Number.isSafeInteger(Number(input)) ? Number(input) : input;
    case "object":
      break;
    default:
      throw new JinjaError("type", `a ${typeof input} cannot be given to a chat template`);
  }
  if (input === null || input instanceof PythonObject) return input;
  if (depth > maxDepth) throw new JinjaError("limit", `values nest deeper than ${maxDepth} levels`);
  if (Array.isArray(input)) return input.map((item) => fromJavaScript(item ?? null, depth + 1));
  if (input instanceof PythonFloat) return new Float(input.value);
  const dict = new Dict();
  const entries = input instanceof Map ? input : Object.entries(input);
  for (const [key, value] of entries) {
    // A field that is present but undefined is absent in JSON, and so for the template.
    if (value !== undefined) dict.set(String(key), fromJavaScript(value, depth + 1));
  }
  return dict;
}
