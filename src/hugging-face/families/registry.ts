// The list of families that folders may hold; a new one is a table beside this file and a line.
import { nearestMatch, TinferError } from "../../core/errors.ts";
import type { FolderFamily } from "../family.ts";
import type { JsonObject } from "../json-file.ts";
import { bert, roberta } from "./bert.ts";
import { deepseek, deepseek2, mistral4 } from "./deepseek.ts";
import { gemma, gemma2, gemma3 } from "./gemma.ts";
import { gptOss } from "./gpt-oss.ts";
import { granite, graniteMoe } from "./granite.ts";
import { llama, ministral3, smolLm3 } from "./llama.ts";
import { llama4 } from "./llama4.ts";
import { olmo2 } from "./olmo.ts";
import { phi2, phi3, phiMoe } from "./phi.ts";
import { qwen2, qwen2Moe, qwen3, qwen3Moe } from "./qwen.ts";
import { cohere, glm4, gpt2, starcoder2 } from "./single.ts";

const families: readonly FolderFamily[] = [
  ...[llama, smolLm3, ministral3, granite, graniteMoe, llama4],
  ...[deepseek, deepseek2, mistral4],
  ...[qwen2, qwen2Moe, qwen3, qwen3Moe],
  ...[gemma, gemma2, gemma3],
  ...[phi2, phi3, phiMoe, olmo2, glm4, cohere, starcoder2, gpt2],
  gptOss,
  ...[bert, roberta],
];

/** The family whose tensors a GGUF architecture's are. */
export function folderFamilyFor(architecture: string): FolderFamily {
  const found = families.find((family) => family.architecture === architecture);
  if (found !== undefined) return found;
  const known = [...new Set(families.map((family) => family.architecture))].join(", ");
  throw new TinferError("unsupported", `tensors of '${architecture}' have no known names here`, {
    hint: `folders may be for ${known}; a GGUF file of the adapter will run`,
  });
}

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
