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
): AnswerWriter {
  let content = "";
  let reasoning = "";
  let wroteReasoning = false;
  const show = (part: { reasoning: string; content: string }) => {
    if (part.reasoning !== "") {
      reasoning += part.reasoning;
      if (reasoningStyle === "dim") write(dim(part.reasoning));
      wroteReasoning = reasoningStyle === "dim";
    }
    if (part.content !== "") {
      const first = content === "";
      const text = first && reasoning !== "" ? part.content.trimStart() : part.content;
      if (text === "") return;
      if (first && wroteReasoning) write("\n\n");
      content += text;
      write(text);
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

/** Prompt and generation speed, time to first token, context used. */
export function summaryLine(end: GenerationEnd, facts: LoadedModelFacts): string {
  const { promptTokens, cachedTokens, completionTokens, timings } = end;
  const rate = (tokens: number, ms: number) => (ms > 0 ? (tokens / ms) * 1000 : 0).toFixed(1);
  const computed = promptTokens - cachedTokens;
  const parts = [
    `prompt ${computed} tokens, ${rate(computed, timings.promptMs)} tok/s`,
    `answer ${completionTokens} tokens, ${rate(completionTokens - 1, timings.generateMs)} tok/s`,
    `first token ${timings.ttftMs.toFixed(0)} ms`,
    `context ${promptTokens + completionTokens}/${facts.maxContextLen}`,
  ];
  if (end.contextFull) parts.push("stopped: the context is full (--ctx)");
  return parts.join(" · ");
}
