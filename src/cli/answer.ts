// How an answer appears in a terminal: reasoning dimmed or hidden, and the summary line below.
import type { LoadedModelFacts } from "../engine/client.ts";
import type { GenerationEnd } from "../engine/text-generation.ts";
import { ReasoningSplitter } from "../template/reasoning.ts";
import { dim, write } from "./terminal.ts";

export interface AnswerWriter {
  push(text: string): void;
  /** Writes what was held back and ends the line. */
  end(): void;
  /** Everything outside the reasoning so far. */
  content(): string;
  reasoning(): string;
}

export function answerWriter(
  splitter = new ReasoningSplitter(undefined, false),
  reasoningStyle: "dim" | "hide",
  wrap: (text: string) => string = (text) => text,
): AnswerWriter {
  let content = "";
  let reasoning = "";
  let wroteReasoning = false;
  const show = (part: { reasoning: string; content: string }) => {
    if (part.reasoning !== "") {
      reasoning += part.reasoning;
      if (reasoningStyle === "dim") write(dim(wrap(part.reasoning)));
      wroteReasoning = reasoningStyle === "dim";
    }
    if (part.content !== "") {
      const first = content === "";
      const text = first && reasoning !== "" ? part.content.trimStart() : part.content;
      if (text === "") return;
      if (first && wroteReasoning) write(wrap("\n\n"));
      content += text;
      write(wrap(text));
    }
  };
  return {
    push: (text) => show(splitter.push(text)),
    end() {
      show(splitter.end());
      if (!content.endsWith("\n")) write("\n");
    },
    content: () => content,
    reasoning: () => reasoning,
  };
}

export const contextFullNotice = "stopped: the context is full (--ctx)";

/** Tokens and speed of prompt and answer, time to first token, context used. Fits 80 columns. */
export function summaryLine(end: GenerationEnd, facts: LoadedModelFacts): string {
  const { promptTokens, cachedTokens, completionTokens, timings } = end;
  if (completionTokens === 0 && end.finishReason === "cancelled") {
    return `stopped while reading the prompt of ${promptTokens} tokens`;
  }
  const rate = (tokens: number, ms: number) => {
    const perSecond = ms > 0 ? (Math.max(0, tokens) / ms) * 1000 : 0;
    return perSecond.toFixed(perSecond < 100 ? 1 : 0);
  };
  const computed = promptTokens - cachedTokens;
  const parts = [
    `prompt ${computed}, ${rate(computed, timings.promptMs)} tok/s`,
    `answer ${completionTokens}, ${rate(completionTokens - 1, timings.generateMs)} tok/s`,
    `first token ${timings.ttftMs.toFixed(0)} ms`,
    `context ${promptTokens + completionTokens}/${facts.maxContextLen}`,
  ];
  if (end.contextFull) parts.push(contextFullNotice);
  return parts.join(" · ");
}
