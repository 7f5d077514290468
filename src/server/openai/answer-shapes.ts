// Pieces of OpenAI's answers: usage, finish reasons, log probabilities in the chat form.
import type { TokenLogprob } from "../../engine/client.ts";
import type { GenerationEnd } from "../../engine/text-generation.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
import type { TokenChoice } from "../answers.ts";

/** JSON has no -Infinity; this is what OpenAI writes for it. */
const leastLogprob = -9999;

export function unixSeconds(date: Date): number {
  return Math.floor(date.getTime() / 1000);
}

/** `ends[prompt][choice]`: a prompt counts once, however many answers it gets. */
export function usageOf(ends: readonly (readonly GenerationEnd[])[]) {
  let promptTokens = 0;
  let cachedTokens = 0;
  let completionTokens = 0;
  for (const choices of ends) {
    promptTokens += choices[0]!.promptTokens;
    cachedTokens += choices[0]!.cachedTokens;
    for (const end of choices) completionTokens += end.completionTokens;
  }
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

export function finiteLogprob(logprob: number): number {
  return Math.max(logprob, leastLogprob);
}

/** The text of one token; bytes that are no character of their own appear as U+FFFD. */
export function tokenString(tokenizer: Tokenizer, tokenId: number): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(tokenizer.tokenBytes(tokenId));
}

function describe(tokenizer: Tokenizer, { tokenId, logprob }: TokenLogprob) {
  return {
    token: tokenString(tokenizer, tokenId),
    logprob: finiteLogprob(logprob),
    // What is not in the text has a name, but no bytes: those of all tokens are the text.
    bytes: tokenizer.isHidden(tokenId) ? null : [...tokenizer.tokenBytes(tokenId)],
  };
}

export function describeTokens(tokenizer: Tokenizer, tokens: readonly TokenChoice[]) {
  return tokens.map((token) => ({
    ...describe(tokenizer, token),
    top_logprobs: token.top.map((candidate) => describe(tokenizer, candidate)),
  }));
}
