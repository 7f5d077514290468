// Embeddings of many texts through an engine: in portions that fill a step, so that others who
// wait for the engine get their turn, and whoever asked may leave, between them.
import type { AdapterScale } from "./adapter-choice.ts";
import type { EngineClient, LoadedModelFacts } from "./client.ts";
import { checkPrompt } from "./context-limits.ts";
import { stepsOf } from "./hidden-states.ts";
import type { Pooling } from "./pooling.ts";

/** Prompts that the engine takes in one step, in order; long ones are alone. */
function* portionsOf(prompts: readonly Int32Array[], facts: LoadedModelFacts) {
  const { isEncoder, maxTokensPerStep: maxTokens, maxSequences } = facts;
  // Decoders take one text after the other.
  const limits = { maxTokens, maxSequences: isEncoder ? maxSequences : 1 };
  const chosen = prompts.map((tokenIds) => tokenIds.subarray(0, maxTokens));
  for (const parts of stepsOf(chosen, limits)) yield parts.map(({ index }) => prompts[index]!);
}

/** One vector per prompt, in order; all prompts are checked before the first is computed. */
export async function* embedTexts(
  engine: EngineClient,
  prompts: readonly Int32Array[],
  pooling: Pooling,
  adapters?: readonly AdapterScale[],
  signal?: AbortSignal,
): AsyncGenerator<Float32Array> {
  for (const tokenIds of prompts) checkPrompt(tokenIds, engine.facts, "read");
  for (const portion of portionsOf(prompts, engine.facts)) {
    yield* await engine.embed(portion, pooling, adapters, signal);
  }
}
