// The shape of what the parser of @huggingface/jinja returns. The package does not export the
// types of its nodes; `parseTemplate` is the one place that asserts them.
import { parse } from "@huggingface/jinja";
import { JinjaError } from "./errors.ts";
import { type Token, tokenize } from "./lexer.ts";

export interface Identifier {
  type: "Identifier";
  value: string;
}

export interface CallExpression {
  type: "CallExpression";
  callee: Expression;
  args: Argument[];
}

export type Argument =
  | Expression
  | { type: "KeywordArgumentExpression"; key: Identifier; value: Expression }
  | { type: "SpreadExpression"; argument: Expression }
  | { type: "KeywordSpreadExpression"; argument: Expression };

export interface SliceExpression {
  type: "SliceExpression";
  start?: Expression;
  stop?: Expression;
  step?: Expression;
}

export interface FilterExpression {
  type: "FilterExpression";
  operand: Expression;
  filter: Identifier | CallExpression;
}

export interface MemberExpression {
  type: "MemberExpression";
  object: Expression;
  property: Expression | SliceExpression;
  computed: boolean;
}

export interface TestExpression {
  type: "TestExpression";
  operand: Expression;
  negate: boolean;
  test: Identifier | CallExpression;
}

export interface TupleLiteral {
  type: "TupleLiteral";
  value: Expression[];
}

export type Expression =
  | Identifier
  | CallExpression
  | FilterExpression
  | MemberExpression
  | TestExpression
  | TupleLiteral
  | { type: "IntegerLiteral" | "FloatLiteral"; value: number }
  | { type: "StringLiteral"; value: string }
  | { type: "ArrayLiteral"; value: Expression[] }
  | { type: "ObjectLiteral"; value: Map<Expression, Expression> }
  | { type: "BinaryExpression"; operator: Token; left: Expression; right: Expression }
  | { type: "UnaryExpression"; operator: Token; argument: Expression }
  | { type: "Ternary"; condition: Expression; trueExpr: Expression; falseExpr: Expression }
  /** `lhs if test`: a conditional without `else`, or the filter of a `for`. */
  | { type: "SelectExpression"; lhs: Expression; test: Expression };

export type Parameter = Extract<Argument, { type: "Identifier" | "KeywordArgumentExpression" }>;

export interface ForStatement {
  type: "For";
  loopvar: Expression;
  iterable: Expression;
  body: Statement[];
  defaultBlock: Statement[];
  recursive: boolean;
}

export interface SetStatement {
  type: "Set";
  assignee: Expression;
  value: Expression | null;
  body: Statement[];
}

export interface MacroStatement {
  type: "Macro";
  name: Identifier;
  args: Parameter[];
  body: Statement[];
}

export interface CallStatement {
  type: "CallStatement";
  call: CallExpression;
  callerArgs: Parameter[] | null;
  body: Statement[];
}

/** An expression in the place of a statement is printed. */
export type Statement = { tokenIndex?: number } & (
  | Expression
  | { type: "If"; test: Expression; body: Statement[]; alternate: Statement[] }
  | ForStatement
  | SetStatement
  | MacroStatement
  | CallStatement
  | { type: "FilterStatement"; filter: Identifier | CallExpression; body: Statement[] }
  | { type: "With"; targets: Expression[]; values: Expression[]; body: Statement[] }
  | { type: "Break" | "Continue" | "Comment" }
);

export interface ParsedTemplate {
  body: Statement[];
  /** Line of a statement, for messages. */
  lineOf(tokenIndex: number): number;
}

export function parseTemplate(source: string): ParsedTemplate {
  const tokens = tokenize(source);
  const lineOf = (index: number) => tokens[Math.min(index, tokens.length - 1)]?.line ?? 1;
  try {
    return { body: (parse(tokens) as unknown as { body: Statement[] }).body, lineOf };
  } catch (error) {
    throw describeParseError(error, tokens, lineOf);
  }
}

function describeParseError(
  error: unknown,
  tokens: readonly Token[],
  lineOf: (index: number) => number,
): JinjaError {
  if (error instanceof RangeError) return new JinjaError("limit", "nested too deeply");
  const { tokenIndex } = error as { tokenIndex?: number };
  if (!(error instanceof Error) || tokenIndex === undefined) throw error;
  // The parser has usually just stepped over the token that it cannot accept.
  const isAtEnd = tokenIndex >= tokens.length && error instanceof TypeError;
  if (isAtEnd) return new JinjaError("syntax", "unexpected end of template", lineOf(tokenIndex));
  const message = error.message.replace(/^Parser Error: /, "");
  return new JinjaError("syntax", message, lineOf(Math.max(0, tokenIndex - 1)));
}
