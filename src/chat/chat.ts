// The chat: reads messages and commands, asks the engine, keeps the session and saves it after
// every turn. Shows nothing itself: see ChatTerminal.
import { TinferError } from "../core/errors.ts";
import { type GenerationEnd, generateText, type TextRequest } from "../engine/text-generation.ts";
import type { RenderedPrompt } from "../template/chat-prompt.ts";
import type { Autosave } from "./autosave.ts";
import { findCommand } from "./command-list.ts";
import { type ChatHost, type ChatModel, chatPromptOf } from "./model.ts";
import { ChatSession } from "./session.ts";
import type { SavedChat } from "./session-file.ts";
import type { ChatSettings } from "./settings.ts";
import type { AnswerView, ChatTerminal } from "./terminal.ts";

/** What the answers of this chat came to, for `/stats`. */
export interface ChatTotals {
  numAnswers: number;
  promptTokens: number;
  cachedTokens: number;
  promptMs: number;
  completionTokens: number;
  generateMs: number;
}

export interface ChatParts {
  readonly terminal: ChatTerminal;
  readonly host: ChatHost;
  readonly model: ChatModel;
  readonly settings: ChatSettings;
  /** undefined: this chat leaves nothing on disk. */
  readonly autosave: Autosave | undefined;
}

export class Chat implements AsyncDisposable {
  readonly terminal: ChatTerminal;
  readonly host: ChatHost;
  readonly session: ChatSession;
  readonly autosave: Autosave | undefined;
  readonly totals: ChatTotals = {
    ...{ numAnswers: 0, promptTokens: 0, cachedTokens: 0 },
    ...{ promptMs: 0, completionTokens: 0, generateMs: 0 },
  };
  #model: ChatModel;
  #failure: TinferError | undefined;
  #numFailed = 0;
  #isSaving = true;
  #isLeaving = false;

  constructor({ terminal, host, model, settings, autosave }: ChatParts) {
    this.terminal = terminal;
    this.host = host;
    this.autosave = autosave;
    this.#model = model;
    this.session = new ChatSession(this.sessionModel(model, settings.template), settings);
  }

  get model(): ChatModel {
    return this.#model;
  }

  /** The line that is being handled is the last. */
  leave(): void {
    this.#isLeaving = true;
  }

  sessionModel(model: ChatModel, template: string | undefined) {
    return {
      prompt: chatPromptOf(model, template, (name) => this.host.readTemplate(name)),
      tokenizer: model.text.tokenizer,
      context: model.engine.facts,
    };
  }

  /** Puts another model in place; the old one is released. */
  async useModel(model: ChatModel): Promise<void> {
    this.session.model = this.sessionModel(model, this.session.settings.template);
    const old = this.#model;
    this.#model = model;
    await old.engine[Symbol.asyncDispose]();
  }

  /** Runs until the input ends or a person leaves. Piped: throws at the end if a line failed. */
  async run(): Promise<void> {
    while (!this.#isLeaving) {
      const text = await this.#read();
      if (text === undefined) break;
      if (text.trim() !== "") await this.#guard(() => this.#handle(text));
    }
    if (this.terminal.isInteractive || this.#failure === undefined) return;
    const count = this.#numFailed === 1 ? "one line" : `${this.#numFailed} lines`;
    throw new TinferError(this.#failure.code, `${count} of the input failed, see above`);
  }

  async #read(): Promise<string | undefined> {
    let text: string | undefined;
    await this.#guard(async () => {
      text = await this.terminal.read();
    });
    return text;
  }

  /** Says operating errors and goes on; anything else is a bug, or a reader that has gone. */
  async #guard(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof TinferError)) throw error;
      this.terminal.error(error);
      this.#failure ??= error;
      this.#numFailed++;
    }
  }

  async #handle(text: string): Promise<void> {
    const found = findCommand(text);
    if (found === undefined) await this.send(text);
    else await found.command.run(this, found.argument);
  }

  /** One turn. What cannot be sent leaves the conversation as it was. */
  async send(text: string): Promise<void> {
    this.session.addUser(text);
    // A kill during the answer must not lose the message.
    this.save();
    try {
      if (await this.answer()) return;
      this.terminal.note("stopped before the first word; your message is taken back");
    } finally {
      if (!this.session.isAnswered) {
        this.session.undo();
        this.save();
      }
    }
  }

  /**
   * Asks for an answer to the conversation, shows it and adds it; a stopped answer stays as far
   * as it came. Returns false when it was stopped before there was any.
   */
  async answer(): Promise<boolean> {
    const prompt = this.session.renderFitting();
    const style = this.session.settings.showThinking ? "dim" : "hide";
    const view = this.terminal.openAnswer(prompt.createSplitter(), style);
    let end: GenerationEnd | undefined;
    try {
      end = await this.terminal.stoppable((signal) => this.#generate(prompt, view, signal));
    } finally {
      // Also when the engine failed or the terminal has gone: what was said is kept.
      const hasText = view.content() !== "" || view.reasoning() !== "";
      if (hasText || (end !== undefined && end.finishReason !== "cancelled")) {
        this.session.addAnswer(view.content(), view.reasoning());
        this.save();
      }
    }
    this.#count(end);
    if (!this.session.isAnswered) return false;
    this.#explain(view, end);
    this.terminal.summary(end, this.#model.engine.facts);
    return true;
  }

  async #generate(
    prompt: RenderedPrompt,
    view: AnswerView,
    signal: AbortSignal,
  ): Promise<GenerationEnd> {
    const { engine, text } = this.#model;
    let end: GenerationEnd | undefined;
    try {
      const request = this.#request(prompt);
      for await (const event of generateText(engine, text.tokenizer, request, signal)) {
        if (event.kind === "prompt") {
          const { computedTokens: done, promptTokens: total } = event;
          this.terminal.progress({ label: "reading the prompt", done, total, unit: "tokens" });
        } else if (event.kind === "end") end = event;
        else {
          this.terminal.progress(undefined);
          view.push(event.text);
        }
      }
    } finally {
      this.terminal.progress(undefined);
      view.end();
    }
    if (end !== undefined) return end;
    throw new TinferError("native", "the engine ended the answer without saying why");
  }

  #request({ tokenIds }: RenderedPrompt): TextRequest {
    const { sampling, maxTokens, stop, ignoreEos } = this.session.settings;
    return {
      promptTokenIds: tokenIds,
      maxTokens: maxTokens ?? Number.MAX_SAFE_INTEGER,
      sampling,
      stopTokenIds: ignoreEos ? [] : this.#model.endIds,
      stopStrings: stop,
    };
  }

  #explain(view: AnswerView, end: GenerationEnd): void {
    const { terminal } = this;
    const { maxTokens } = this.session.settings;
    if (end.contextFull)
      terminal.note("the context is full: /undo takes a turn back, /clear starts anew");
    else if (end.finishReason === "length")
      terminal.note(`cut after ${maxTokens} tokens (/max-tokens)`);
    else if (view.content() === "" && view.reasoning() === "") {
      terminal.note("the model ended its answer without a word");
    }
  }

  #count(end: GenerationEnd): void {
    const { totals } = this;
    totals.numAnswers++;
    totals.promptTokens += end.promptTokens;
    totals.cachedTokens += end.cachedTokens;
    totals.promptMs += end.timings.promptMs;
    totals.completionTokens += end.completionTokens;
    totals.generateMs += end.timings.generateMs;
  }

  /** The session as a file holds it. */
  saved(): SavedChat {
    const { settings, messages } = this.session;
    const savedAt = new Date().toISOString();
    return { model: this.#model.argument, savedAt, settings, messages };
  }

  /** Saves the session; where that fails, says so once and goes on. */
  save(): void {
    if (this.autosave === undefined || !this.#isSaving) return;
    try {
      if (!this.autosave.save(this.saved())) return;
      this.terminal.note(
        "another tinfer goes on with this saved chat: this one is now saved apart",
      );
    } catch (error) {
      this.#isSaving = false;
      const reason = error instanceof Error ? error.message : String(error);
      this.terminal.note(`this chat is not saved: ${reason}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#model.engine[Symbol.asyncDispose]();
  }
}
