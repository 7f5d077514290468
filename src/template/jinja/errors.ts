// The one error that the template engine throws while it parses or renders; the public
// face in chat-template.ts turns it into a TinferError.

export type JinjaErrorKind =
  | "syntax" // the template is not valid Jinja
  | "raised" // the template called raise_exception
  | "type" // TypeError in Python
  | "value" // ValueError, LookupError, OverflowError, …
  | "undefined" // a missing value was used
  | "security" // the sandbox forbids it
  | "runtime" // TemplateRuntimeError and the like
  | "limit"; // one of our own limits was reached

export class JinjaError extends Error {
  readonly kind: JinjaErrorKind;
  /** 1-based line in the template, once known. */
  line: number | undefined;

  constructor(kind: JinjaErrorKind, message: string, line?: number) {
    super(message);
    this.kind = kind;
    this.line = line;
  }
}
