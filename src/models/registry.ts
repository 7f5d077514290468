// The list of model families; a new architecture is one file beside this one and one line here.
import { nearestMatch, TinferError } from "../core/errors.ts";
import { bert } from "./bert.ts";
import { commandR } from "./command-r.ts";
import { deepseek } from "./deepseek.ts";
import { deepseek2 } from "./deepseek2.ts";
import type { Family } from "./family.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3 } from "./gemma3.ts";
import { glm4 } from "./glm4.ts";
import { gptOss } from "./gpt-oss.ts";
import { gpt2 } from "./gpt2.ts";
import { granite } from "./granite.ts";
import { granitemoe } from "./granitemoe.ts";
import { llama } from "./llama.ts";
import { llama4 } from "./llama4.ts";
import { mistral3 } from "./mistral3.ts";
import { olmo2 } from "./olmo2.ts";
import { phi2 } from "./phi2.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen2moe } from "./qwen2moe.ts";
import { qwen3 } from "./qwen3.ts";
import { smollm3 } from "./smollm3.ts";
import { starcoder2 } from "./starcoder2.ts";

const families: readonly Family[] = [
  llama,
  bert,
  commandR,
  deepseek,
  deepseek2,
  gemma,
  gemma2,
  gemma3,
  glm4,
  gpt2,
  gptOss,
  granite,
  granitemoe,
  llama4,
  mistral3,
  olmo2,
  phi2,
  phi3,
  qwen2,
  qwen2moe,
  qwen3,
  smollm3,
  starcoder2,
];

export function knownArchitectures(): string[] {
  return families.flatMap((family) => family.architectures);
}

export function familyOf(architecture: string): Family {
  const family = families.find((entry) => entry.architectures.includes(architecture));
  if (family !== undefined) return family;
  const nearest = nearestMatch(architecture, knownArchitectures());
  throw new TinferError("unsupported", `architecture '${architecture}' is not known`, {
    hint: `known are ${knownArchitectures().join(", ")}${nearest ? `; nearest: ${nearest}` : ""}`,
  });
}
