// The chat template of a command: the model file's own, or the one that --template names.
import { existsSync, statSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import type { ModelText } from "../engine/model-text.ts";
import { builtinTemplate, builtinTemplateNames } from "../template/builtin.ts";
import { type ChatTemplate, compileChatTemplate } from "../template/chat-template.ts";
import { resolveChatTemplate } from "../template/resolve.ts";
import type { Flags, FlagValues } from "./flags.ts";
import { readTextFile } from "./text-input.ts";

export const templateFlags: Flags = {
  template: {
    kind: "text",
    placeholder: "NAME|FILE",
    description: "chat template instead of the model's own",
    elsewhere: ["chat-template", "chat-template-file"],
  },
};

/** A name of a built-in template, or the text of a file. */
export function readTemplate(nameOrFile: string): string {
  if (builtinTemplate(nameOrFile) !== undefined) return nameOrFile;
  if (existsSync(nameOrFile) && statSync(nameOrFile).isFile()) {
    const hint = "check that this user may read the file";
    const source = readTextFile(nameOrFile, `--template: ${nameOrFile}`, hint);
    if (/\{[{%]/.test(source)) return source;
    throw new TinferError("template", `--template: ${nameOrFile} is no template`, {
      hint: "it has no {{ … }} and no {% … %}, so it would print no message",
    });
  }
  throw new TinferError("notFound", `--template: no file and no template '${nameOrFile}'`, {
    hint: `built in are ${builtinTemplateNames().join(", ")}`,
  });
}

export function templateFor(
  values: FlagValues,
  text: Pick<ModelText, "chatTemplate">,
): ChatTemplate {
  const given = values.text("template");
  if (given === undefined) return resolveChatTemplate({ fromFile: text.chatTemplate });
  const source = readTemplate(given);
  // A file's text is a template, whatever it looks like; only a name is looked up.
  if (source !== given) return compileChatTemplate(source);
  return resolveChatTemplate({ fromFile: undefined, override: source });
}
