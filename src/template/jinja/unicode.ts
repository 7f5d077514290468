// Strings as Python counts them: by code point, with Python's idea of white space and lines.

const surrogate = /[\ud800-\udfff]/;

/** Where a string has no surrogates, UTF-16 units are code points and stay cheap. */
function hasSurrogates(text: string): boolean {
  return surrogate.test(text);
}

export function textLength(text: string): number {
  return hasSurrogates(text) ? Array.from(text).length : text.length;
}

export function characters(text: string): string[] {
  return hasSurrogates(text) ? Array.from(text) : text.split("");
}

/** UTF-16 index of the code point `index`, and back. */
export function unitIndex(text: string, index: number): number {
  if (!hasSurrogates(text)) return index;
  return Array.from(text).slice(0, index).join("").length;
}

export function pointIndex(text: string, index: number): number {
  return index < 0 ? index : textLength(text.slice(0, index));
}

/** The characters for which `str.isspace` holds. JavaScript's own \s differs in six of them. */
export const whitespaceClass =
  "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const leadingWhitespace = new RegExp(`^[${whitespaceClass}]+`);
const allWhitespace = new RegExp(`^[${whitespaceClass}]+$`);
const words = new RegExp(`[^${whitespaceClass}]+`, "g");
const whitespaceCharacter = new RegExp(`[${whitespaceClass}]`);

export function isWhitespace(text: string): boolean {
  return allWhitespace.test(text);
}

export function stripStart(text: string, strip?: string): string {
  if (strip === undefined) return text.replace(leadingWhitespace, "");
  const set = new Set(strip);
  const points = Array.from(text);
  let start = 0;
  while (start < points.length && set.has(points[start]!)) start++;
  return points.slice(start).join("");
}

export function stripEnd(text: string, strip?: string): string {
  if (strip === undefined) {
    let end = text.length;
    while (end > 0 && whitespaceCharacter.test(text[end - 1]!)) end--;
    return text.slice(0, end);
  }
  const set = new Set(strip);
  const points = Array.from(text);
  let end = points.length;
  while (end > 0 && set.has(points[end - 1]!)) end--;
  return points.slice(0, end).join("");
}

export function strip(text: string, characters_?: string): string {
  return stripEnd(stripStart(text, characters_), characters_);
}

/** Words with their start, split at white space. */
export function findWords(text: string): { word: string; start: number }[] {
  return Array.from(text.matchAll(words), (match) => ({ word: match[0], start: match.index }));
}

const lineEndClass = "\\n-\\r\\x1c-\\x1e\\x85\\u2028\\u2029";
const lineEnd = new RegExp(`\\r\\n|[${lineEndClass}]`, "g");

/** `str.splitlines`: no empty line after the last end of line. */
export function splitLines(text: string, keepEnds = false): string[] {
  const lines: string[] = [];
  let start = 0;
  for (const match of text.matchAll(lineEnd)) {
    const end = match.index + match[0].length;
    lines.push(text.slice(start, keepEnds ? end : match.index));
    start = end;
  }
  if (start < text.length) lines.push(text.slice(start));
  return lines;
}

/** `str.capitalize`: first character in title case, the rest in lower case. */
export function capitalize(text: string): string {
  const [first = "", ...rest] = Array.from(text);
  return titleCharacter(first) + rest.join("").toLowerCase();
}

const cased = /[\p{Lu}\p{Ll}\p{Lt}]/u;

/** `str.title`: each run of cased letters starts in title case. */
export function title(text: string): string {
  let result = "";
  let inWord = false;
  for (const character of text) {
    result += inWord ? character.toLowerCase() : titleCharacter(character);
    inWord = cased.test(character);
  }
  return result;
}

/** Title case of one character: "ß" becomes "Ss" and "ǆ" becomes "ǅ". */
function titleCharacter(character: string): string {
  const upper = character.toUpperCase();
  if (/^[\u01c4-\u01cc\u01f1-\u01f3]$/.test(character)) return digraphTitles(character);
  return upper.length > character.length && !/[\u0370-\u03ff\u1f00-\u1fff]/.test(character)
    ? upper[0] + upper.slice(1).toLowerCase()
    : upper;
}

function digraphTitles(character: string): string {
  const code = character.charCodeAt(0);
  if (code >= 0x01f1) return "\u01f2";
  return String.fromCharCode(0x01c5 + 3 * Math.floor((code - 0x01c4) / 3));
}
