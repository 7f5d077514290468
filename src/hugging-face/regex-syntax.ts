// Regular expressions of tokenizer.json (Oniguruma's syntax) in JavaScript's, with its `v` flag.
// What has no equal is refused, not approximated.

/** Script names that Oniguruma takes without "Script=". */
const isScript =
  /^(Han|Hiragana|Katakana|Hangul|Latin|Greek|Cyrillic|Thai|Arabic|Hebrew|Khmer|Lao|Myanmar)$/;

const classes: Readonly<Record<string, string>> = {
  s: String.raw`\p{White_Space}`,
  S: String.raw`\P{White_Space}`,
  d: String.raw`\p{Nd}`,
  D: String.raw`\P{Nd}`,
  w: String.raw`[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]`,
};

/** The expression for `new RegExp(…, "v")`, or undefined where JavaScript has no equal. */
export function toJavaScript(pattern: string): string | undefined {
  const translated = translate(pattern);
  if (translated === undefined) return undefined;
  try {
    new RegExp(translated, "v");
    return translated;
  } catch {
    return undefined;
  }
}

function translate(pattern: string): string | undefined {
  let output = "";
  let depth = 0;
  for (let at = 0; at < pattern.length; ) {
    const rest = pattern.slice(at);
    const sequence =
      /^\\(?:p\{\^?[\w=]+\}|P\{[\w=]+\}|u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[\s\S])/.exec(rest);
    if (sequence !== null) {
      const part = translateEscape(sequence[0]);
      if (part === undefined) return undefined;
      output += part;
      at += sequence[0].length;
      continue;
    }
    const letter = rest[0]!;
    if (depth > 0 && rest.startsWith("[:")) return undefined;
    // Possessive quantifiers never give back, which JavaScript cannot say.
    if (depth === 0 && /^[+*?]\+/.test(rest)) return undefined;
    if (letter === "[") depth++;
    else if (letter === "]" && depth > 0) depth--;
    output += depth > 0 && letter !== "[" ? inClass(rest) : letter;
    // Brackets that open a class may be followed by its negation.
    at++;
    if (letter === "[" && pattern[at] === "^") {
      output += "^";
      at++;
    }
  }
  return output;
}

/** One character of a class; what `v` reserves is escaped, ranges and intersections stay. */
function inClass(rest: string): string {
  const letter = rest[0]!;
  if (letter === "&" && rest[1] === "&") return "&";
  return /[(){}/|!#$%*+,.:;<=>?@^`~]/.test(letter) ? `\\${letter}` : letter;
}

function translateEscape(sequence: string): string | undefined {
  const letter = sequence[1]!;
  if (sequence.length > 2) {
    const property = /^\\([pP])\{(\^?)([\w=]+)\}$/.exec(sequence);
    if (property === null) return sequence;
    const [, kind, negation, name] = property;
    const isNegated = (kind === "P") !== (negation === "^");
    return `\\${isNegated ? "P" : "p"}{${isScript.test(name!) ? `Script=${name}` : name}}`;
  }
  if (classes[letter] !== undefined) return classes[letter];
  if (/[nrtfv0]/.test(letter)) return sequence;
  if (/[A-Za-z0-9]/.test(letter)) return undefined;
  // JavaScript only lets punctuation be escaped that means something.
  return /[\^$\\.*+?()[\]{}|/-]/.test(letter) ? sequence : letter;
}
