// Where a model folder keeps its chat templates: a file of its own, or tokenizer_config.json.
import { isFields, type JsonValue, readFolderJson, readFolderText } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";

export function chatTemplateMetadata(folder: string, values: MetadataValues): void {
  const config = readFolderJson(folder, "tokenizer_config.json");
  const older = readFolderJson(folder, "chat_template.json");
  const template =
    readFolderText(folder, "chat_template.jinja") ??
    config?.get("chat_template") ??
    older?.get("chat_template");
  if (template === undefined) return;
  const named =
    typeof template === "string" ? new Map([["default", template]]) : namedTemplates(template);
  if (named === undefined) {
    throw (config?.has("chat_template") ? config : older!).invalid("chat_template", "a template");
  }
  for (const [name, text] of named) {
    const key = name === "default" ? "" : `.${name}`;
    values.text(`tokenizer.chat_template${key}`, text);
  }
}

/** Several templates: an array of {name, template}. */
function namedTemplates(value: JsonValue): Map<string, string> | undefined {
  if (!Array.isArray(value)) return undefined;
  const named = new Map<string, string>();
  for (const entry of value) {
    if (!isFields(entry)) return undefined;
    const { name, template } = entry;
    if (typeof name !== "string" || typeof template !== "string") return undefined;
    named.set(name, template);
  }
  return named;
}
