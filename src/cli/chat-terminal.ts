// The chat in a terminal: node's readline edits the line, everything else is here. The line
// editor runs all the time, so that Ctrl-C is always seen and what is typed while an answer or a
// model is awaited is not lost; its output is muted then.
import { createInterface, type Interface } from "node:readline";
import { PassThrough, Writable } from "node:stream";
import { completeLine } from "../chat/completion.ts";
import type { InputHistory } from "../chat/input-history.ts";
import { MessageReader } from "../chat/message-reader.ts";
import type { AnswerView, ChatTerminal, WorkProgress } from "../chat/terminal.ts";
import { TinferError } from "../core/errors.ts";
import type { LoadedModelFacts } from "../engine/client.ts";
import type { GenerationEnd } from "../engine/text-generation.ts";
import type { ReasoningSplitter } from "../template/reasoning.ts";
import { summaryLine } from "./answer.ts";
import {
  endBracketedPaste,
  type InputPart,
  LongTexts,
  PasteFilter,
  startBracketedPaste,
} from "./bracketed-paste.ts";
import type { LeavingSignal } from "./chat-pipe.ts";
import { openAnswer, ProgressView } from "./chat-view.ts";
import { accent, bold, dim, failure, OutputClosed, out, sayError, write } from "./terminal.ts";
import { WordWrap } from "./word-wrap.ts";

/** The line that readline edits; its types call it read-only, its documentation does not. */
type EditedLine = Interface & { line: string; cursor: number; prevRows: number };

/** The Escape key and the beginning of another key's bytes differ only by what follows soon. */
const escapePatienceMs = 40;

interface Key {
  readonly name?: string;
  readonly ctrl?: boolean;
  readonly meta?: boolean;
}

export class TerminalChat implements ChatTerminal, Disposable {
  readonly isInteractive = true;
  readonly #history: InputHistory;
  readonly #reader = new MessageReader();
  readonly #longTexts = new LongTexts();
  readonly #progress = new ProgressView();
  readonly #filter = new PasteFilter();
  readonly #keys = new PassThrough();
  readonly #lineEditor: EditedLine;
  readonly #handlers = new Map<LeavingSignal | "SIGWINCH", () => void>();
  readonly #onInput = (bytes: Uint8Array) => this.#takeInput(bytes);
  #keyTimer: ReturnType<typeof setTimeout> | undefined;
  /** Lines that were entered before anybody asked for them. */
  readonly #entered: string[] = [];
  #entering = "";
  #isMuted = true;
  #isClosed = false;
  #resolveRead: ((text: string | undefined) => void) | undefined;
  /** What was read is being dealt with. */
  #isAtWork = false;
  /** The part of it that Ctrl-C stops. */
  #work: AbortController | undefined;
  /** Ctrl-C, where it stops nothing, was the last key. */
  #isArmed = false;
  readonly #leaving = new AbortController();
  readonly leaving = this.#leaving.signal;
  /** The signal that ends this chat; Ctrl-C twice is SIGINT. */
  leftBy: LeavingSignal | undefined;

  constructor(history: InputHistory) {
    this.#history = history;
    this.#lineEditor = createInterface({
      input: Object.assign(this.#keys, {
        isTTY: true,
        setRawMode: (mode: boolean) => process.stdin.setRawMode(mode),
      }),
      output: this.#createOutput(),
      terminal: true,
      historySize: 0,
      completer: completeLine,
      escapeCodeTimeout: escapePatienceMs,
    }) as EditedLine;
    // Before readline's own listener: it must be known what is entered or replaced.
    this.#keys.prependListener("keypress", (_: string, key: Key) => this.#onKey(key));
    this.#lineEditor.on("line", () => this.#onLine());
    this.#lineEditor.on("SIGINT", () => this.#onInterrupt());
    this.#lineEditor.on("SIGCONT", () => this.#onContinue());
    this.#lineEditor.on("close", () => this.#onClose());
    process.stdin.on("data", this.#onInput);
    process.stdin.on("end", () => this.#leave("SIGHUP"));
    process.stdin.on("error", () => this.#leave("SIGHUP"));
    this.#handle("SIGINT", () => this.#onInterrupt());
    this.#handle("SIGTERM", () => this.#leave("SIGTERM"));
    this.#handle("SIGHUP", () => this.#leave("SIGHUP"));
    write(startBracketedPaste);
  }

  #handle(signal: LeavingSignal | "SIGWINCH", handler: () => void): void {
    this.#handlers.set(signal, handler);
    process.on(signal, handler);
  }

  /** Where readline draws: the terminal, or nowhere while muted. */
  #createOutput(): Writable {
    const output = new Writable({
      decodeStrings: false,
      write: (chunk: string | Buffer, _encoding, done) => {
        try {
          if (!this.#isMuted) write(String(chunk));
          done();
        } catch (error) {
          if (!(error instanceof OutputClosed)) throw error;
          this.#leave("SIGHUP");
          done();
        }
      },
    });
    Object.defineProperty(output, "columns", { get: () => process.stdout.columns });
    this.#handle("SIGWINCH", () => output.emit("resize"));
    return Object.assign(output, { isTTY: true });
  }

  #takeInput(bytes: Uint8Array): void {
    clearTimeout(this.#keyTimer);
    this.#pass(this.#filter.push(bytes));
    if (!this.#filter.isHoldingKeys) return;
    this.#keyTimer = setTimeout(() => this.#pass(this.#filter.flushKeys()), escapePatienceMs);
  }

  #pass(parts: readonly InputPart[]): void {
    for (const { kind, text } of parts) {
      if (kind === "keys") this.#keys.write(text);
      // In turn with the keys before it, which the stream delivers later.
      else setImmediate(() => this.#insert(this.#longTexts.shorten(text)));
    }
  }

  #insert(text: string): void {
    const { line, cursor } = this.#lineEditor;
    this.#show(line.slice(0, cursor) + text + line.slice(cursor), cursor + text.length);
  }

  #show(line: string, cursor = line.length): void {
    this.#lineEditor.line = line;
    this.#lineEditor.cursor = cursor;
    this.#lineEditor.prompt(true);
  }

  #onKey(key: Key | undefined): void {
    const { line } = this.#lineEditor;
    const name = key?.name;
    if (!(key?.ctrl && name === "c")) this.#isArmed = false;
    if ((name === "return" || name === "enter") && !key?.meta) this.#entering = line;
    else if (name === "return" && key?.meta) this.#insert("\n");
    else if (name === "up" || (name === "p" && key?.ctrl)) {
      this.#recall(this.#history.previous(line));
    } else if (name === "down" || (name === "n" && key?.ctrl)) this.#recall(this.#history.next());
  }

  #recall(entry: string | undefined): void {
    if (entry !== undefined) this.#show(this.#longTexts.shorten(entry));
  }

  #onLine(): void {
    // Not the event's own text: readline rewrites lines with line ends in them.
    this.#entered.push(this.#longTexts.expand(this.#entering));
    this.#deliver();
  }

  /** Gives what was entered to who reads; a message may need more lines. */
  #deliver(): void {
    while (this.#resolveRead !== undefined) {
      const line = this.#entered.shift();
      if (line === undefined) {
        this.#prompt();
        return;
      }
      const message = this.#reader.push(line);
      if (message === undefined) continue;
      this.#history.add(message);
      this.#finishRead(message);
    }
  }

  #finishRead(text: string | undefined): void {
    const resolve = this.#resolveRead;
    this.#resolveRead = undefined;
    this.#isMuted = true;
    this.#isAtWork = text !== undefined;
    resolve?.(text);
  }

  #prompt(): void {
    this.#isMuted = false;
    // What was drawn while muted is nowhere: the next drawing starts on this row.
    this.#lineEditor.prevRows = 0;
    this.#lineEditor.setPrompt(accent(this.#reader.isOpen ? "... " : ">>> "));
    this.#lineEditor.prompt(true);
  }

  async read(): Promise<string | undefined> {
    this.#isAtWork = false;
    this.#isArmed = false;
    if (this.#isClosed || this.leftBy !== undefined) return undefined;
    const typed = this.#entered[0];
    // What was entered early appears as if it was entered now.
    if (typed !== undefined) out(accent(">>> ") + typed);
    return new Promise((resolve) => {
      this.#resolveRead = resolve;
      this.#deliver();
    });
  }

  async stoppable<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    this.#work = controller;
    if (this.leftBy !== undefined) controller.abort();
    try {
      return await work(controller.signal);
    } finally {
      this.#work = undefined;
    }
  }

  #onInterrupt(): void {
    if (this.#work !== undefined && !this.#work.signal.aborted) {
      // What was entered ahead is not sent now; it stands at the next prompt.
      const ahead = this.#entered.splice(0).filter((line) => line.trim() !== "");
      this.#show(this.#longTexts.shorten([...ahead, this.#lineEditor.line].join("\n")));
      this.#work.abort();
      return;
    }
    if (this.#isAtWork && this.#work === undefined && !this.#isArmed) {
      this.#isArmed = true;
      out(dim("this cannot be stopped; Ctrl-C again leaves when it is done"));
      return;
    }
    // Nobody listens to the first one, or the second one comes before the answer has stopped.
    if (this.#resolveRead === undefined || this.#isArmed) {
      this.#leave("SIGINT");
      return;
    }
    this.#reader.reset();
    this.#lineEditor.cursor = this.#lineEditor.line.length;
    this.#lineEditor.prompt(true);
    this.#lineEditor.line = "";
    this.#lineEditor.cursor = 0;
    out(`^C\n${dim("Ctrl-C again or Ctrl-D leaves")}`);
    this.#prompt();
    this.#isArmed = true;
  }

  #leave(signal: LeavingSignal): void {
    // A closed terminal is noticed in several ways.
    if (this.leftBy === "SIGHUP") return;
    // Already leaving and still here: something does not end.
    if (this.leftBy !== undefined) {
      try {
        this[Symbol.dispose]();
      } finally {
        process.kill(process.pid, "SIGKILL");
      }
    }
    this.leftBy = signal;
    this.#leaving.abort();
    this.#work?.abort();
    if (signal === "SIGINT" && this.#resolveRead !== undefined) out("");
    this.#finishRead(undefined);
  }

  /** Back from Ctrl-Z: readline has paused itself, and the shell has changed the terminal. */
  #onContinue(): void {
    this.#lineEditor.resume();
    this.#lineEditor.prevRows = 0;
    write(startBracketedPaste);
  }

  /** Ctrl-D, or the terminal has gone. */
  #onClose(): void {
    this.#isClosed = true;
    if (this.#resolveRead !== undefined && this.leftBy === undefined) out("");
    this.#finishRead(undefined);
  }

  print(text: string): void {
    out(`${text}\n`);
  }
  note(text: string): void {
    out(dim(text));
  }
  error(error: unknown): void {
    if (!(error instanceof TinferError)) {
      sayError(error);
      return;
    }
    out(`${failure("✗")} ${error.message}`);
    if (error.hint !== undefined) out(dim(`  ${error.hint}`));
    out("");
  }
  bold(text: string): string {
    return bold(text);
  }
  dim(text: string): string {
    return dim(text);
  }
  openAnswer(splitter: ReasoningSplitter, style: "dim" | "hide"): AnswerView {
    const wrapper = new WordWrap(() => process.stdout.columns || 80);
    let hasBegun = false;
    // Answers often begin with a space that belongs to the prompt before them.
    return openAnswer(splitter, style, (text) => {
      const shown = hasBegun ? text : text.trimStart();
      hasBegun ||= shown !== "";
      return wrapper.push(shown);
    });
  }
  progress(state: WorkProgress | undefined): void {
    this.#progress.show(state);
  }
  summary(end: GenerationEnd, facts: LoadedModelFacts): void {
    out(`${dim(summaryLine(end, facts))}\n`);
  }

  [Symbol.dispose](): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
    process.stdin.off("data", this.#onInput);
    clearTimeout(this.#keyTimer);
    this.#isMuted = true;
    this.#lineEditor.close();
    process.stdin.pause();
    this.#progress.show(undefined);
    if (this.leftBy !== "SIGHUP") write(endBracketedPaste);
  }
}
