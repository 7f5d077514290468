// The pipelines of tokenizer.json (normalizer, pre_tokenizer, post_processor) as flat lists of
// their components, and the components that several kinds of tokenizers know.
import { TinferError } from "../core/errors.ts";
import { isFields, JsonObject } from "./json-file.ts";

/** Components in components; parsing recurses once per level. */
const maxDepth = 8;

const innerKeys = ["normalizers", "pretokenizers", "processors", "decoders"] as const;

/** The components under `key` in order; sequences are taken apart. */
export function componentsOf(json: JsonObject, key: string): JsonObject[] {
  const root = json.object(key);
  return root === undefined ? [] : flatten(root, key, 0);
}

function flatten(component: JsonObject, key: string, depth: number): JsonObject[] {
  if (depth > maxDepth) throw unknownComponent(component, key, "sequences in sequences");
  if (component.text("type") !== "Sequence") return [component];
  const inner = innerKeys.map((name) => component.list(name)).find((list) => list !== undefined);
  return (inner ?? []).flatMap((part) => {
    if (!isFields(part)) throw unknownComponent(component, key, JSON.stringify(part));
    return flatten(new JsonObject(component.path, part), key, depth + 1);
  });
}

export function unknownComponent(at: JsonObject, key: string, what?: string): TinferError {
  const shown = what ?? JSON.stringify(at.fields).slice(0, 200);
  return new TinferError("unsupported", `${at.path}: ${key}: ${shown} is not known`, {
    hint: "this tokenizer is not known to tinfer; a GGUF file of the model may run",
  });
}

/** The text that a Split or Replace looks for, or undefined where it is a regular expression. */
export function patternText(component: JsonObject): string | undefined {
  return component.object("pattern")?.text("String");
}

export function patternRegex(component: JsonObject): string | undefined {
  return component.object("pattern")?.text("Regex");
}

/** Unicode normalisation forms by the names of components. */
export const forms: Readonly<Record<string, string>> = {
  ...{ NFC: "NFC", NFD: "NFD", NFKC: "NFKC", NFKD: "NFKD" },
};

/**
 * When SentencePiece's space mark goes in front of a text: "doubled" also in front of another one,
 * "first" not behind a special token.
 */
export type SpacePrefix = "doubled" | "always" | "first" | "never";

/** What a Metaspace component says, in its newer and older forms. */
export function metaspacePrefix(component: JsonObject): SpacePrefix {
  const replacement = component.text("replacement") ?? "▁";
  if (replacement !== "▁") throw component.invalid("replacement", "'▁'");
  const scheme = component.text("prepend_scheme");
  if (scheme === undefined)
    return (component.flag("add_prefix_space") ?? true) ? "always" : "never";
  if (scheme === "always" || scheme === "first" || scheme === "never") return scheme;
  throw component.invalid("prepend_scheme", "always, first or never");
}
