// Limits on what a template from a stranger's file may make, so that it fails instead of
// filling memory. Each is far above what conversations need.
import { JinjaError } from "./errors.ts";

/** Loop iterations, calls and items walked in one rendering; a chat needs thousands. */
export const maxSteps = 4_000_000;

/** UTF-16 units of the output, and of any text put together on the way. */
export const maxTextLen = 16 * 1024 * 1024;

/** Items of a list made by `+` or `*`. */
export const maxListLen = 4 * 1024 * 1024;

/** Bits of an integer; Python has no limit here, but refuses to print beyond 4300 digits. */
export const maxIntegerBits = 100_000;
export const maxIntegerDigits = 4300;

/** Width of a padded field. */
const maxFieldWidth = 1 << 20;

/** Width of a field that a template asks for. */
export function checkFieldWidth(width: number): number {
  if (width > maxFieldWidth) {
    throw new JinjaError("limit", `a field of ${width} characters; the limit is ${maxFieldWidth}`);
  }
  return width;
}

export function checkTextLen(text: string): string {
  if (text.length > maxTextLen) {
    throw new JinjaError("limit", `a text grew beyond ${maxTextLen} characters`);
  }
  return text;
}
