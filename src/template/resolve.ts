// Which chat template a model uses: the one that the user names, else the one in its file.
// There is no silent fallback: a wrong template makes a model talk nonsense.
import { nearestMatch, TinferError } from "../core/errors.ts";
import { builtinTemplate, builtinTemplateNames } from "./builtin.ts";
import { type ChatTemplate, compileChatTemplate } from "./chat-template.ts";

export interface TemplateChoice {
  /** `tokenizer.chat_template` of the model. */
  fromFile: string | undefined;
  /** Name of a built-in template, or the text of a template file. */
  override?: string;
}

export function resolveChatTemplate(options: TemplateChoice): ChatTemplate {
  const { fromFile, override } = options;
  if (override !== undefined) return compileChatTemplate(findOverride(override));
  if (fromFile !== undefined && fromFile !== "") return compileChatTemplate(fromFile);
  throw new TinferError("template", "the model has no chat template", { hint: nameHint() });
}

function findOverride(override: string): string {
  const builtin = builtinTemplate(override);
  if (builtin !== undefined) return builtin;
  // Every template that prints a message has a tag; a bare word is a name, misspelt.
  if (/\{[{%]/.test(override)) return override;
  const nearest = nearestMatch(override, builtinTemplateNames());
  const suggestion = nearest === undefined ? "" : `; did you mean ${nearest}?`;
  const name = override.length > 60 ? `${override.slice(0, 60)}…` : override;
  throw new TinferError("template", `there is no chat template named '${name}'${suggestion}`, {
    hint: nameHint(),
  });
}

function nameHint(): string {
  const names = builtinTemplateNames().join(", ");
  return `give one with --template NAME or --template FILE; names: ${names}`;
}
