// Source text to the tokens that the parser of @huggingface/jinja takes, under the settings of
// Hugging Face's environment: trim_blocks, lstrip_blocks and the `generation` tag.
import type { parse } from "@huggingface/jinja";
import { JinjaError } from "./errors.ts";
import { isWhitespace, stripEnd, whitespaceClass } from "./unicode.ts";

export type ParserToken = Parameters<typeof parse>[0][number];

/** A token with the 1-based line it starts on. */
export type Token = ParserToken & { readonly line: number };

/** Open brackets and statement blocks; the parser recurses once or more for each. */
const maxNesting = 200;

const operatorTypes: Readonly<Record<string, ParserToken["type"]>> = {
  "(": "OpenParen",
  ")": "CloseParen",
  "[": "OpenSquareBracket",
  "]": "CloseSquareBracket",
  "{": "OpenCurlyBracket",
  "}": "CloseCurlyBracket",
  ",": "Comma",
  ".": "Dot",
  ":": "Colon",
  "|": "Pipe",
  "=": "Equals",
  "+": "AdditiveBinaryOperator",
  "-": "AdditiveBinaryOperator",
  "~": "AdditiveBinaryOperator",
  "*": "MultiplicativeBinaryOperator",
  "/": "MultiplicativeBinaryOperator",
  "//": "MultiplicativeBinaryOperator",
  "%": "MultiplicativeBinaryOperator",
  "**": "ExponentiationBinaryOperator",
  "==": "ComparisonBinaryOperator",
  "!=": "ComparisonBinaryOperator",
  "<": "ComparisonBinaryOperator",
  "<=": "ComparisonBinaryOperator",
  ">": "ComparisonBinaryOperator",
  ">=": "ComparisonBinaryOperator",
};

const closers: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };

const sp = `[${whitespaceClass}]`;
const tagStart = /\{[{%#]/g;
const rawStart = new RegExp(`\\{%[-+]?${sp}*raw${sp}*(?:-%\\}${sp}*|%\\})`, "y");
const rawEnd = new RegExp(`(\\{%([-+]?))${sp}*endraw${sp}*(?:\\+%\\}|-%\\}${sp}*|%\\}\\n?)`, "g");
const commentEnd = new RegExp(`\\+#\\}|-#\\}${sp}*|#\\}\\n?`, "g");
const blockEnd = new RegExp(`\\+%\\}|-%\\}${sp}*|%\\}\\n?`, "y");
const variableEnd = new RegExp(`-\\}\\}${sp}*|\\}\\}`, "y");
const space = new RegExp(`${sp}+`, "y");
const digits = "\\d+(?:_\\d+)*";
const float = new RegExp(
  `(?<!\\.)${digits}(?:(?:\\.${digits})?e[+-]?${digits}|\\.${digits})`,
  "iy",
);
const integer = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const name = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy;
const string = /'[^'\\]*(?:\\[\s\S][^'\\]*)*'|"[^"\\]*(?:\\[\s\S][^"\\]*)*"/y;
const operator = /\*\*|\/\/|==|!=|<=|>=|[-+/*%~[\](){}<>=.:|,]/y;

export function tokenize(template: string): Token[] {
  return new Lexer(template).run();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #position = 0;
  #line = 1;
  #lineOffset = 0;
  /** Whether the last thing read ended with a line end, so that `lstrip_blocks` applies. */
  #atLineStart = true;

  constructor(template: string) {
    const source = template.replaceAll(/\r\n?/g, "\n");
    // Jinja drops one line end at the end of the file.
    this.#source = source.endsWith("\n") ? source.slice(0, -1) : source;
  }

  run(): Token[] {
    while (this.#position < this.#source.length) {
      tagStart.lastIndex = this.#position;
      const found = tagStart.exec(this.#source);
      if (found === null) {
        this.#text(this.#source.slice(this.#position));
        break;
      }
      this.#readTag(found[0], found.index);
    }
    checkNesting(this.#tokens);
    return this.#tokens;
  }

  #readTag(opening: string, index: number): void {
    const control = this.#source[index + 2] ?? "";
    const sign = control === "-" || control === "+" ? control : "";
    const before = this.#source.slice(this.#position, index);
    this.#text(this.#trimBefore(before, opening === "{{" ? "+" : sign, sign));
    const raw = opening === "{%" ? this.#match(rawStart, index) : undefined;
    if (raw !== undefined) {
      this.#advance(index, raw);
      this.#readRaw();
      return;
    }
    this.#advance(index, opening + sign);
    if (opening === "{#") this.#readComment();
    else if (opening === "{%") this.#readStatement();
    else this.#readCode("{{", "}}");
  }

  /** What `{%-` and `lstrip_blocks` leave of the text before a tag. */
  #trimBefore(text: string, blockSign: string, sign: string): string {
    if (sign === "-") return stripEnd(text);
    if (blockSign === "+") return text;
    const lineStart = text.lastIndexOf("\n") + 1;
    const isBlankLine = isWhitespace(text.slice(lineStart));
    return isBlankLine && (lineStart > 0 || this.#atLineStart) ? text.slice(0, lineStart) : text;
  }

  #text(text: string): void {
    if (text !== "") this.#push("Text", text);
  }

  #push(type: ParserToken["type"], value: string): void {
    this.#tokens.push({ type, value, line: this.#lineAt(this.#position) });
  }

  #lineAt(position: number): number {
    for (let index = this.#lineOffset; index < position; index++) {
      if (this.#source.charCodeAt(index) === 10) this.#line++;
    }
    this.#lineOffset = Math.max(this.#lineOffset, position);
    return this.#line;
  }

  #match(pattern: RegExp, position = this.#position): string | undefined {
    pattern.lastIndex = position;
    return pattern.exec(this.#source)?.[0];
  }

  #advance(from: number, text: string): void {
    this.#position = from + text.length;
    this.#atLineStart = text.endsWith("\n");
  }

  #readRaw(): void {
    rawEnd.lastIndex = this.#position;
    const end = rawEnd.exec(this.#source);
    if (end === null) this.#fail("Missing end of raw directive");
    const sign = end[2] ?? "";
    this.#text(this.#trimBefore(this.#source.slice(this.#position, end.index), sign, sign));
    this.#advance(end.index, end[0]);
  }

  #readComment(): void {
    commentEnd.lastIndex = this.#position;
    const end = commentEnd.exec(this.#source);
    if (end === null) this.#fail("Missing end of comment tag");
    this.#advance(end.index, end[0]);
  }

  /** `generation` marks the assistant's text for training: a call block that changes nothing. */
  #readStatement(): void {
    const first = this.#tokens.length;
    this.#readCode("{%", "%}");
    const keyword = this.#tokens[first + 1];
    if (keyword?.type !== "Identifier") return;
    if (keyword.value === "endgeneration") {
      this.#tokens[first + 1] = { ...keyword, value: "endcall" };
    } else if (keyword.value === "generation") {
      const { line } = keyword;
      const call: Token[] = [
        { type: "Identifier", value: "call", line },
        { type: "Identifier", value: generationFunction, line },
        { type: "OpenParen", value: "(", line },
        { type: "CloseParen", value: ")", line },
      ];
      this.#tokens.splice(first + 1, 1, ...call);
    }
  }

  #readCode(opening: "{%" | "{{", closing: "%}" | "}}"): void {
    const isBlock = opening === "{%";
    this.#push(isBlock ? "OpenStatement" : "OpenExpression", opening);
    const brackets: string[] = [];
    const end = isBlock ? blockEnd : variableEnd;
    for (;;) {
      const blank = this.#match(space);
      if (blank !== undefined) this.#advance(this.#position, blank);
      const close = brackets.length === 0 ? this.#match(end) : undefined;
      if (close !== undefined) {
        this.#push(isBlock ? "CloseStatement" : "CloseExpression", closing);
        this.#advance(this.#position, close);
        return;
      }
      if (this.#position >= this.#source.length) {
        const wanted = brackets.at(-1) ?? closing;
        this.#fail(`unexpected end of template, expected '${wanted}'`);
      }
      this.#readToken(brackets);
    }
  }

  #readToken(brackets: string[]): void {
    const number = this.#match(float) ?? this.#match(integer);
    if (number !== undefined) {
      this.#push("NumericLiteral", normalizeNumber(number));
      this.#advance(this.#position, number);
      return;
    }
    const word = this.#match(name);
    if (word !== undefined) {
      this.#push("Identifier", word);
      this.#advance(this.#position, word);
      return;
    }
    const quoted = this.#match(string);
    if (quoted !== undefined) {
      this.#push("StringLiteral", this.#unescape(quoted.slice(1, -1)));
      this.#advance(this.#position, quoted);
      return;
    }
    const mark = this.#match(operator);
    if (mark === undefined) {
      this.#fail(`unexpected char '${String.fromCodePoint(this.#code())}'`);
    }
    const closer = closers[mark];
    if (closer !== undefined) brackets.push(closer);
    else if (")]}".includes(mark) && brackets.pop() !== mark) this.#fail(`unexpected '${mark}'`);
    this.#push(operatorTypes[mark]!, mark);
    this.#advance(this.#position, mark);
  }

  #code(): number {
    return this.#source.codePointAt(this.#position) ?? 0;
  }

  /** Python's escapes; an unknown one keeps its backslash. */
  #unescape(text: string): string {
    const pattern =
      /\\(?:x([\da-f]{2})|u([\da-f]{4})|U([\da-f]{8})|([0-7]{1,3})|([xuUN])|([\s\S]))/gi;
    return text.replaceAll(
      pattern,
      (all: string, x?: string, u?: string, long?: string, octal?: string, bad?: string) => {
        const hex = x ?? u ?? long;
        if (hex !== undefined) {
          const code = Number.parseInt(hex, 16);
          if (code > 0x10ffff) this.#fail("illegal Unicode character in a string");
          return code > 0xffff ? String.fromCodePoint(code) : String.fromCharCode(code);
        }
        if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8));
        if (bad !== undefined && /[xuUN]/.test(bad)) this.#fail(`truncated \\${bad} escape`);
        return simpleEscapes[all[1]!] ?? all;
      },
    );
  }

  #fail(message: string): never {
    throw new JinjaError("syntax", message, this.#lineAt(this.#position));
  }
}

/** The name that the `generation` tag calls; a template cannot write it. */
export const generationFunction = "generation block";

const simpleEscapes: Readonly<Record<string, string>> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** The parser tells floats by their point and reads JavaScript's notation. */
function normalizeNumber(text: string): string {
  const plain = text.replaceAll("_", "").toLowerCase();
  if (/^0[box]/.test(plain)) return BigInt(plain).toString();
  if (!plain.includes(".") && plain.includes("e")) return plain.replace("e", ".0e");
  return plain;
}

function checkNesting(tokens: readonly Token[]): void {
  let depth = 0;
  tokens.forEach((token, index) => {
    const keyword = tokens[index - 1]?.type === "OpenStatement" ? token.value : "";
    if (/^Open(Paren|Square|Curly)/.test(token.type)) depth++;
    else if (/^Close(Paren|Square|Curly)/.test(token.type)) depth--;
    else if (/^(?:if|for|macro|call|filter|with)$/.test(keyword)) depth++;
    else if (/^end/.test(keyword)) depth = Math.max(0, depth - 1);
    if (depth > maxNesting) {
      throw new JinjaError("limit", `nested deeper than ${maxNesting} levels`, token.line);
    }
  });
}
