// What the chat needs from whoever shows it: a terminal, a pipe, or a test. The chat itself
// prints nothing.
import type { LoadedModelFacts } from "../engine/client.ts";
import type { GenerationEnd } from "../engine/text-generation.ts";
import type { ReasoningSplitter } from "../template/reasoning.ts";

/** How far long work is. */
export interface WorkProgress {
  /** What is done, e.g. "reading the prompt". */
  readonly label: string;
  readonly done: number;
  readonly total: number;
  readonly unit: "tokens" | "bytes";
}

/** One answer as it appears. */
export interface AnswerView {
  push(text: string): void;
  /** Shows what was held back and ends the line; an answer without a word leaves no line. */
  end(): void;
  /** Everything outside the reasoning so far. */
  content(): string;
  reasoning(): string;
}

export interface ChatTerminal {
  /** A person types; otherwise lines come from a pipe. */
  readonly isInteractive: boolean;
  /** The next message or command; undefined when there is no more. */
  read(): Promise<string | undefined>;
  /** Runs work that Ctrl-C stops through the signal. */
  stoppable<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>;
  /** What a command was asked for. */
  print(text: string): void;
  /** A remark beside the conversation. */
  note(text: string): void;
  error(error: unknown): void;
  bold(text: string): string;
  dim(text: string): string;
  openAnswer(splitter: ReasoningSplitter, reasoningStyle: "dim" | "hide"): AnswerView;
  /** How far the present work is; `undefined` ends the display. */
  progress(state: WorkProgress | undefined): void;
  summary(end: GenerationEnd, facts: LoadedModelFacts): void;
}
