// From a model argument to the file to load. Also the place where other tools' caches will be
// searched.
import { existsSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import { formatModelReference, parseModelReference } from "./reference.ts";
import type { ModelStore } from "./store.ts";

/** The path of the .gguf file (of a split model the first shard) or of the folder that is meant. */
export function locateModel(argument: string, store: ModelStore): string {
  // A path that exists wins over a stored name, as in a shell.
  if (argument !== "" && existsSync(argument)) return argument;
  const stored = store.find(argument);
  if (stored === undefined) throw unknownModel(argument, store);
  const missing = stored.paths.find((path) => !existsSync(path));
  const [first] = stored.paths;
  if (first !== undefined && missing === undefined) return first;
  throw new TinferError("unreadable", `${stored.name}:${stored.tag} lacks its file ${missing}`, {
    hint: `Fetch it again: tinfer pull ${stored.source}`,
  });
}

function unknownModel(argument: string, store: ModelStore): TinferError {
  const reference = parseModelReference(argument);
  if (reference.kind === "path") {
    return new TinferError("notFound", `no such file: ${argument}`, {
      hint: nearHint(store, argument) ?? "`tinfer ls` lists the stored models.",
    });
  }
  if (reference.kind !== "name") {
    return new TinferError("notFound", `${argument} is not on this machine yet`, {
      hint: `Fetch it: tinfer pull ${formatModelReference(reference)}`,
    });
  }
  return new TinferError("notFound", `no file and no stored model "${argument}"`, {
    hint:
      nearHint(store, argument) ??
      "Fetch a model first: tinfer pull hf:user/repo[:QUANT] (`tinfer ls` lists those here).",
  });
}

function nearHint(store: ModelStore, argument: string): string | undefined {
  const near = store.suggestions(argument);
  if (near.length === 0) return undefined;
  return `Did you mean ${near.join(", ")}? Otherwise fetch it: tinfer pull hf:user/repo[:QUANT]`;
}
