// The `is…` methods of Python's str.
import { isWhitespace } from "./unicode.ts";

const characterClasses: Readonly<Record<string, RegExp>> = {
  isalpha: /^\p{L}+$/u,
  isdecimal: /^\p{Nd}+$/u,
  isdigit: /^[\p{Nd}\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468]+$/u,
  isnumeric: /^[\p{N}\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341]+$/u,
  isalnum: /^[\p{L}\p{N}]+$/u,
  isidentifier: /^[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*$/u,
};

/** The answer of `text.name()`, or undefined where `name` is no such method. */
export function testCharacters(text: string, name: string): boolean | undefined {
  const pattern = characterClasses[name];
  if (pattern !== undefined) return pattern.test(text);
  switch (name) {
    case "isspace":
      return isWhitespace(text);
    case "isascii":
      return !/[^\0-\x7f]/.test(text);
    case "isprintable":
      return !/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(text);
    case "islower":
      return /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text);
    case "isupper":
      return /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text);
    case "istitle":
      return isTitle(text);
    default:
      return undefined;
  }
}

/** Upper case only where a word starts, lower case only inside one. */
function isTitle(text: string): boolean {
  let inWord = false;
  let hasCased = false;
  for (const character of text) {
    const isUpper = /[\p{Lu}\p{Lt}]/u.test(character);
    const isLower = /\p{Ll}/u.test(character);
    if ((isUpper && inWord) || (isLower && !inWord)) return false;
    inWord = isUpper || isLower;
    hasCased ||= inWord;
  }
  return hasCased;
}
