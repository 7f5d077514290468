// What the interactive and the piped chat show in the same way: answers, progress of a prompt.
import type { AnswerView } from "../chat/terminal.ts";
import type { ReasoningSplitter } from "../template/reasoning.ts";
import { answerWriter } from "./answer.ts";
import { Progress } from "./terminal.ts";

/** Like `answerWriter`, but an answer without a word leaves no empty line. */
export function openAnswer(
  splitter: ReasoningSplitter,
  style: "dim" | "hide",
  wrap?: (text: string) => string,
): AnswerView {
  const writer = answerWriter(splitter, style, wrap);
  let hasText = false;
  return {
    push(text) {
      hasText ||= text !== "";
      writer.push(text);
    },
    end() {
      if (hasText) writer.end();
    },
    content: () => writer.content(),
    reasoning: () => writer.reasoning(),
  };
}

export class PromptProgress {
  #progress: Progress | undefined;

  show(state: { readonly computed: number; readonly total: number } | undefined): void {
    if (state === undefined) {
      this.#progress?.done();
      this.#progress = undefined;
      return;
    }
    this.#progress ??= new Progress("reading the prompt");
    this.#progress.update(state.computed, state.total, "tokens");
  }
}
