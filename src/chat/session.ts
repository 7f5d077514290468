// A conversation: its messages and settings, how it becomes a prompt, and whether that fits the
// context. Pure: no terminal, no file, no engine. Nothing is ever dropped from it silently.
import { TinferError } from "../core/errors.ts";
import { type ContextFacts, contextAdvice, trainedText } from "../engine/context-limits.ts";
import type { ChatPrompt, RenderedPrompt } from "../template/chat-prompt.ts";
import type { ChatMessage } from "../template/messages.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ChatSettings } from "./settings.ts";

/** What a conversation must know of the model that answers. */
export interface SessionModel {
  readonly prompt: ChatPrompt;
  readonly tokenizer: Pick<Tokenizer, "encode">;
  readonly context: ContextFacts;
}

export interface MessageUse {
  readonly role: string;
  readonly tokens: number;
  readonly text: string;
}

/** Where the tokens of the context are. */
export interface ContextUse {
  /** The whole prompt, as the next message would find it. */
  readonly promptTokens: number;
  readonly maxContextLen: number;
  readonly messages: readonly MessageUse[];
  /** What the template writes around the messages; negative where it drops some of them. */
  readonly templateTokens: number;
}

export class ChatSession {
  #messages: ChatMessage[] = [];
  /** Replaced as a whole for another model or template; the messages are then rendered anew. */
  model: SessionModel;
  settings: ChatSettings;

  constructor(model: SessionModel, settings: ChatSettings) {
    this.model = model;
    this.settings = settings;
  }

  /** The conversation without the system message, which is a setting. */
  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  /** Whether the last message is an answer. */
  get isAnswered(): boolean {
    return this.#messages.at(-1)?.role === "assistant";
  }

  replaceMessages(messages: readonly ChatMessage[]): void {
    this.#messages = [...messages];
  }

  addUser(content: string): void {
    this.#messages.push({ role: "user", content });
  }

  /**
   * The answer goes in as it was generated, so that rendering it again gives the tokens that the
   * prefix cache holds. Reasoning is kept apart: the template decides whether it is shown again.
   */
  addAnswer(content: string, reasoning: string): void {
    const extra = reasoning === "" ? {} : { reasoning_content: reasoning };
    this.#messages.push({ role: "assistant", content, ...extra });
  }

  /** Takes the last turn back: the last user message and all after it. */
  undo(): ChatMessage[] {
    const start = this.#lastUserIndex();
    return start < 0 ? [] : this.#messages.splice(start);
  }

  /** Takes what follows the last user message back, or returns undefined when there is none. */
  dropAnswer(): ChatMessage[] | undefined {
    const start = this.#lastUserIndex();
    return start < 0 ? undefined : this.#messages.splice(start + 1);
  }

  /** Puts taken messages back at the end. */
  restore(messages: readonly ChatMessage[]): void {
    this.#messages.push(...messages);
  }

  #lastUserIndex(): number {
    return this.#messages.findLastIndex(({ role }) => role === "user");
  }

  /** The messages that the template sees. */
  allMessages(): ChatMessage[] {
    const { system } = this.settings;
    const first = system === undefined ? [] : [{ role: "system", content: system }];
    return [...first, ...this.#messages];
  }

  /** Renders the conversation for the next answer, whether it fits or not. */
  render(messages: readonly ChatMessage[] = this.allMessages()): RenderedPrompt {
    const { thinking } = this.settings;
    const isOn = thinking === "on";
    // Qwen, GLM and others read enable_thinking, DeepSeek and Granite read thinking.
    const variables = thinking === "auto" ? {} : { enable_thinking: isOn, thinking: isOn };
    return this.model.prompt.render({ messages, ...variables });
  }

  /** The prompt for the next answer; throws contextOverflow with the exact numbers. */
  renderFitting(): RenderedPrompt {
    const { context } = this.model;
    const { maxContextLen } = context;
    const rendered = this.render();
    const { length } = rendered.tokenIds;
    if (length < maxContextLen) return rendered;
    const last = this.#messages.slice(this.#lastUserIndex());
    const parts = this.#messages.length > last.length ? this.#split(last, length) : "";
    const advice = contextAdvice(length + 1, context);
    throw new TinferError(
      "contextOverflow",
      `the conversation has ${length} tokens${parts}; the context holds ${maxContextLen}, ` +
        `and one must stay free for the answer; ${trainedText(context)}`,
      {
        hint:
          this.#messages.length > last.length
            ? `/undo takes the last turn back, /clear starts anew; else ${advice}`
            : advice,
      },
    );
  }

  /** How an overflowing prompt divides into what was there and what is new. */
  #split(last: readonly ChatMessage[], total: number): string {
    const before = this.allMessages().slice(0, -last.length);
    const beforeLen = this.#tryRender(before)?.tokenIds.length;
    return beforeLen === undefined
      ? ""
      : ` (${beforeLen} so far, ${total - beforeLen} for this message)`;
  }

  /** Some templates refuse part of a conversation, for example one without a user message. */
  #tryRender(messages: readonly ChatMessage[]): RenderedPrompt | undefined {
    try {
      return this.render(messages);
    } catch (error) {
      if (error instanceof TinferError) return undefined;
      throw error;
    }
  }

  contextUse(): ContextUse {
    const messages = this.allMessages().map((message) => {
      const text = contentText(message);
      const reasoning = message.reasoning_content ?? "";
      return { role: message.role, tokens: this.countTokens(reasoning + text), text };
    });
    const content = messages.reduce((sum, { tokens }) => sum + tokens, 0);
    const promptTokens = this.promptLen();
    const templateTokens = promptTokens - content;
    const { maxContextLen } = this.model.context;
    return { promptTokens, maxContextLen, messages, templateTokens };
  }

  /** Tokens of the conversation so far; 0 where there is none. */
  promptLen(): number {
    const messages = this.allMessages();
    if (messages.length === 0) return 0;
    // A template that refuses a lone system message still gets it with the first user message.
    return (
      this.#tryRender(messages)?.tokenIds.length ??
      messages.reduce((sum, message) => sum + this.countTokens(contentText(message)), 0)
    );
  }

  countTokens(text: string): number {
    const options = { addSpecial: false, parseSpecial: true };
    return text === "" ? 0 : this.model.tokenizer.encode(text, options).length;
  }
}

export function contentText({ content }: ChatMessage): string {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => (part["text"] as string | undefined) ?? "").join("");
}
