// What the interactive and the piped chat show in the same way: answers, progress of long work.
import type { AnswerView, WorkProgress } from "../chat/terminal.ts";
import type { ReasoningSplitter } from "../template/reasoning.ts";
import { answerWriter } from "./answer.ts";
import { formatBytes, Progress } from "./terminal.ts";

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

export class ProgressView {
  #progress: Progress | undefined;

  show(state: WorkProgress | undefined): void {
    if (state === undefined) {
      this.#progress?.done();
      this.#progress = undefined;
      return;
    }
    const { label, done, total, unit } = state;
    this.#progress ??= new Progress(label, unit === "bytes" ? formatBytes : String);
    this.#progress.update(done, total, unit === "tokens" ? unit : "");
  }
}
