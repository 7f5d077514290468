// The chat without a person at a terminal: each line of stdin is a message or a command, answers
// go to stdout and remarks to stderr, with no prompts and no colours.
import { MessageReader } from "../chat/message-reader.ts";
import type { AnswerView, ChatTerminal, WorkProgress } from "../chat/terminal.ts";
import type { ReasoningSplitter } from "../template/reasoning.ts";
import { openAnswer, ProgressView } from "./chat-view.ts";
import { out, say, sayError } from "./terminal.ts";

export type LeavingSignal = "SIGINT" | "SIGTERM" | "SIGHUP";

export class PipedChat implements ChatTerminal, Disposable {
  readonly isInteractive = false;
  readonly #lines = console[Symbol.asyncIterator]();
  readonly #reader = new MessageReader();
  readonly #progress = new ProgressView();
  readonly #controller = new AbortController();
  readonly #handlers = new Map<LeavingSignal, () => void>();
  readonly leaving = this.#controller.signal;
  /** The signal that ends this chat. */
  leftBy: LeavingSignal | undefined;

  constructor() {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      const handler = () => {
        // The first one ends in good order; a second one at once.
        if (this.leftBy !== undefined) {
          // A progress bar hides the cursor.
          this.#progress.show(undefined);
          process.kill(process.pid, "SIGKILL");
        }
        this.leftBy = signal;
        this.#controller.abort();
      };
      this.#handlers.set(signal, handler);
      process.on(signal, handler);
    }
  }

  async read(): Promise<string | undefined> {
    for (;;) {
      const line = await this.#nextLine();
      if (line === undefined) {
        if (this.leftBy === undefined) this.#reader.end();
        return undefined;
      }
      const message = this.#reader.push(line);
      if (message !== undefined) return message;
    }
  }

  async #nextLine(): Promise<string | undefined> {
    const { signal } = this.#controller;
    if (signal.aborted) return undefined;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const stop = () => resolve(undefined);
    signal.addEventListener("abort", stop);
    const next = this.#lines.next().then(({ done, value }) => (done ? undefined : value));
    const line = await Promise.race([next, promise]);
    signal.removeEventListener("abort", stop);
    // Files of other systems end their lines in CRLF.
    return line?.replace(/\r$/, "");
  }

  stoppable<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return work(this.#controller.signal);
  }

  print(text: string): void {
    out(text);
  }
  note(text: string): void {
    say(text);
  }
  error(error: unknown): void {
    sayError(error);
  }
  bold(text: string): string {
    return text;
  }
  dim(text: string): string {
    return text;
  }
  openAnswer(splitter: ReasoningSplitter, style: "dim" | "hide"): AnswerView {
    return openAnswer(splitter, style);
  }
  progress(state: WorkProgress | undefined): void {
    this.#progress.show(state);
  }
  summary(): void {}

  [Symbol.dispose](): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
  }
}
