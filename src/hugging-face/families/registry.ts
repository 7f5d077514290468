// The list of families that folders may hold; a new one is a table beside this file and a line.
import { nearestMatch, TinferError } from "../../core/errors.ts";
import type { FolderFamily } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import { llama } from "./llama.ts";
import { qwen2, qwen2Moe, qwen3, qwen3Moe } from "./qwen.ts";

const families: readonly FolderFamily[] = [llama, qwen2, qwen2Moe, qwen3, qwen3Moe];

export function folderFamilyOf(config: JsonObject): FolderFamily {
  const type = config.text("model_type");
  if (type === undefined) throw config.invalid("model_type", "the name of a model family");
  const found = families.find((family) => family.modelTypes.includes(type));
  if (found !== undefined) return found;
  const known = families.flatMap((family) => family.modelTypes);
  const nearest = nearestMatch(type, known);
  const guess = nearest === undefined ? "" : `; nearest: ${nearest}`;
  throw new TinferError("unsupported", `${config.path}: model_type '${type}' is not known`, {
    hint: `known are ${known.join(", ")}${guess}; a GGUF file of the model may run`,
  });
}
