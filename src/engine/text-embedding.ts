// Embeddings of many texts through an engine: in portions that fill a step, so that others who
// wait for the engine get their turn, and whoever asked may leave, between them.
import { TinferError } from "../core/errors.ts";
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
    for (const vector of await engine.embed(portion, pooling, adapters, signal)) {
      yield requireFinite(vector);
    }
  }
}

/** JSON has no NaN: what is none must not come out as nulls. */
function requireFinite(vector: Float32Array): Float32Array {
  if (vector.every(Number.isFinite)) return vector;
  throw new TinferError("native", "the model computes NaN or infinity on this text", {
    hint: "the file is damaged, or the scale of an adapter is too large",
  });
}
