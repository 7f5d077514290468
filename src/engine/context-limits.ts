// What fits into a model's context: the check of prompts before any work, and what to advise where
// one is too long. Messages have the exact numbers, or bounds of what is far too long.
import { TinferError } from "../core/errors.ts";
import type { TokenLimit } from "../tokenizer/tokenizer.ts";
import type { LoadedModelFacts } from "./client.ts";

/** Facts about the context of a loaded model. */
export type ContextFacts = Pick<
  LoadedModelFacts,
  "maxContextLen" | "trainedContextLen" | "scaledContextLen" | "ropeFactor" | "positionLimit"
>;

/** "the model was trained for 2048 tokens", with what its rope scaling makes of them. */
export function trainedText({ trainedContextLen, scaledContextLen }: ContextFacts): string {
  const trained = `the model was trained for ${trainedContextLen} tokens`;
  if (scaledContextLen === trainedContextLen) return trained;
  return `${trained} and its rope is scaled to ${scaledContextLen}`;
}

/** The flags that let the model read `neededLen` tokens. */
function scalingFlags(neededLen: number, { scaledContextLen, ropeFactor }: ContextFacts) {
  const factor = Math.ceil((neededLen * ropeFactor) / scaledContextLen);
  return `--rope-scaling yarn --rope-scale ${factor}`;
}

/** What to do about a prompt that needs a context of `neededLen` tokens. */
export function contextAdvice(neededLen: number, facts: ContextFacts): string {
  const { positionLimit, scaledContextLen } = facts;
  if (positionLimit !== undefined && neededLen > positionLimit) {
    return `shorten it: the model knows ${positionLimit} positions, no setting gives it more`;
  }
  const larger = `shorten it, or start with --ctx ${neededLen} or more`;
  if (positionLimit !== undefined || neededLen <= scaledContextLen) return larger;
  return `${larger} and stretch the model: ${scalingFlags(neededLen, facts)}`;
}

/** Whether an answer must fit after the prompt. */
export type PromptUse = "generate" | "read";

/** Tokens of a text that are found in milliseconds, whatever the context. */
const quickTokens = 8192;

/**
 * For encoding a prompt: one that is a little too long is counted, so that the error has its exact
 * number; no work goes into one that is far too long.
 */
export function promptLimit(
  facts: ContextFacts,
  use: PromptUse = "generate",
): Required<TokenLimit> {
  const numTokens = Math.max(facts.maxContextLen, quickTokens);
  return {
    numTokens,
    numCounted: numTokens * 2,
    error: (moreThan) => overflow(`more than ${moreThan}`, moreThan + 1, facts, use),
  };
}

/** `counted`: the prompt's tokens, at least `promptLen`, in words. */
function overflow(counted: string, promptLen: number, facts: ContextFacts, use: PromptUse) {
  const spare = use === "generate" ? ", and one must stay free for the answer" : "";
  const counts = `the prompt has ${counted} tokens, the context ${facts.maxContextLen}${spare}`;
  return new TinferError("contextOverflow", `${counts}; ${trainedText(facts)}`, {
    hint: contextAdvice(neededFor(promptLen, use), facts),
  });
}

const neededFor = (promptLen: number, use: PromptUse) => promptLen + (use === "generate" ? 1 : 0);

/** Throws unless the prompt has tokens, all of the vocabulary, and fits the context. */
export function checkPrompt(
  tokenIds: Int32Array,
  facts: ContextFacts & Pick<LoadedModelFacts, "vocabSize">,
  use: PromptUse = "generate",
): void {
  const { maxContextLen, vocabSize } = facts;
  if (tokenIds.length === 0) {
    throw new TinferError("usage", "the prompt is empty", { hint: "give at least one token" });
  }
  const { length } = tokenIds;
  if (neededFor(length, use) > maxContextLen) throw overflow(String(length), length, facts, use);
  const wrong = tokenIds.find((id) => id < 0 || id >= vocabSize);
  if (wrong === undefined) return;
  throw new TinferError("usage", `token id ${wrong} is outside the vocabulary`, {
    hint: `ids go from 0 to ${vocabSize - 1}`,
  });
}

/** What to say of a context that was asked for and is longer than the model can use. */
export function contextWarning(facts: ContextFacts): string | undefined {
  const { maxContextLen, scaledContextLen } = facts;
  if (maxContextLen <= scaledContextLen) return undefined;
  const asked = `--ctx is ${maxContextLen}, but ${trainedText(facts)}: expect nonsense beyond`;
  return `${asked}; ${scalingFlags(maxContextLen, facts)} would stretch it`;
}
