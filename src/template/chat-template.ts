// A chat template compiled once and rendered for every conversation, with the variables,
// functions and settings that Hugging Face transformers gives to templates.
import { TinferError } from "../core/errors.ts";
import { compileBody } from "./jinja/compile-statement.ts";
import { fromJavaScript } from "./jinja/convert.ts";
import { JinjaError } from "./jinja/errors.ts";
import { filters } from "./jinja/filters.ts";
import { globalVariables } from "./jinja/globals.ts";
import { Runtime } from "./jinja/runtime.ts";
import { Output, Scope } from "./jinja/scope.ts";
import { parseTemplate } from "./jinja/syntax-tree.ts";
import { tests } from "./jinja/tests.ts";
import type { ChatMessage } from "./messages.ts";

/** The longest template met in the wild is under 100 kB. */
const maxTemplateLen = 1024 * 1024;

/** Widest part of a source line that a message shows. */
const maxExcerptLen = 80;

export interface RenderVariables {
  messages: readonly ChatMessage[];
  tools?: readonly unknown[] | null;
  add_generation_prompt?: boolean;
  [variable: string]: unknown;
}

export interface ChatTemplate {
  readonly source: string;
  /** `now` is what `strftime_now` prints, in local time; the current time by default. */
  render(variables: RenderVariables, now?: Date): string;
}

export function compileChatTemplate(source: string): ChatTemplate {
  if (source.length > maxTemplateLen) {
    const size = `${source.length} characters; the limit is ${maxTemplateLen}`;
    throw new TinferError("template", `the chat template has ${size}`, { hint: otherTemplate });
  }
  try {
    const { body, lineOf } = parseTemplate(source);
    const execute = compileBody(body, { lineOf, isGuarded: false, isInLoop: false });
    const render = (variables: RenderVariables, now = new Date()): string => {
      try {
        const runtime = new Runtime(now, filters, tests);
        const root = new Scope(runtime, new Scope(runtime, undefined, globalVariables(runtime)));
        const defaults = { tools: null, documents: null, add_generation_prompt: false };
        for (const [name, value] of Object.entries({ ...defaults, ...variables })) {
          if (value !== undefined) root.set(name, fromJavaScript(value));
        }
        const output = new Output();
        execute(root, output);
        return output.text;
      } catch (error) {
        throw describeError(error, source, "cannot be rendered");
      }
    };
    return { source, render };
  } catch (error) {
    throw describeError(error, source, "is not valid");
  }
}

const otherTemplate = "choose another template with --template NAME or --template FILE";

function describeError(error: unknown, source: string, problem: string): unknown {
  if (error instanceof RangeError) {
    const isRecursion = /call stack/i.test(error.message);
    const reason = isRecursion ? "it recurses too deeply" : "it makes a value that is too large";
    const message = `the chat template ${problem}: ${reason}`;
    return new TinferError("template", message, { hint: otherTemplate, cause: error });
  }
  if (!(error instanceof JinjaError)) return error;
  if (error.kind === "raised") {
    // The template speaks for itself: its message is what other engines show too.
    const hint = "the model's chat template refuses these messages: change them as it says";
    return new TinferError("template", error.message, { hint, cause: error });
  }
  const place = error.line === undefined ? "" : ` at line ${error.line}`;
  const excerpt = error.line === undefined ? "" : excerptOf(source, error.line);
  const message = `the chat template ${problem}${place}: ${error.message}${excerpt}`;
  return new TinferError("template", message, { hint: otherTemplate, cause: error });
}

function excerptOf(source: string, line: number): string {
  const text = source.split(/\r\n|\r|\n/)[line - 1]?.trim() ?? "";
  if (text === "") return "";
  const isLong = text.length > maxExcerptLen;
  return `\n  ${line} | ${isLong ? `${text.slice(0, maxExcerptLen)}…` : text}`;
}
