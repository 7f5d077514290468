// A model of letters for chat tests: every character is a token, answers are given in advance.
import type { Autosave } from "../../src/chat/autosave.ts";
import { Chat } from "../../src/chat/chat.ts";
import type { ChatHost, ChatModel } from "../../src/chat/model.ts";
import { type ChatSettings, defaultChatSettings } from "../../src/chat/settings.ts";
import type { ChatTerminal } from "../../src/chat/terminal.ts";
import type {
  EndReason,
  EngineClient,
  GenerationEvent,
  GenerationRequest,
} from "../../src/engine/client.ts";
import type { ReasoningSplitter } from "../../src/template/reasoning.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

/** Ends an answer. */
const endId = 0;

export const letters = {
  kind: "letters",
  vocabSize: 0x110000,
  specialTokens: { endOfGenerationIds: new Set([endId]) },
  addsBos: false,
  addsEos: false,
  encode: (text: string) => Int32Array.from([...text], (letter) => letter.codePointAt(0)!),
  createDetokenizer: () => ({
    push: (id: number) => (id === endId ? "" : String.fromCodePoint(id)),
    end: () => "",
  }),
  findToken: () => undefined,
  tokenText: (id: number) => String.fromCodePoint(id),
} as unknown as Tokenizer;

export const bracketTemplate =
  "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}" +
  "{% if add_generation_prompt %}[assistant:{% endif %}";

export interface FakeModel extends ChatModel {
  /** Answers in the order in which they are given; then "ok". */
  readonly answers: string[];
  readonly requests: GenerationRequest[];
  isDisposed: boolean;
}

export function fakeModel(label: string, maxContextLen: number, template: string): FakeModel {
  const answers: string[] = [];
  const requests: GenerationRequest[] = [];
  const timings = { queueMs: 0, ttftMs: 1, promptMs: 1, generateMs: 1 };
  async function* generate(
    request: GenerationRequest,
    signal?: AbortSignal,
  ): AsyncGenerator<GenerationEvent> {
    requests.push(request);
    let completionTokens = 0;
    const end = (reason: EndReason): GenerationEvent => ({
      ...{
        kind: "end" as const,
        reason,
        promptTokens: request.promptTokenIds.length,
        cachedTokens: 0,
      },
      ...{ completionTokens, timings },
    });
    for (const letter of answers.shift() ?? "ok") {
      await Promise.resolve();
      if (signal?.aborted) return void (yield end("cancelled"));
      if (completionTokens === request.maxTokens) return void (yield end("length"));
      completionTokens++;
      yield { kind: "token", tokenId: letter.codePointAt(0)!, logprob: 0, top: [] };
    }
    yield end("stopToken");
  }
  const model: FakeModel = {
    ...{ argument: label, label, fallbackTemplate: undefined, endIds: [endId] },
    ...{ answers, requests, isDisposed: false },
    text: { tokenizer: letters, chatTemplate: template },
    engine: {
      facts: {
        ...{ maxContextLen, trainedContextLen: 100, scaledContextLen: 100 },
        ...{ ropeFactor: 1, positionLimit: undefined },
      },
      generate,
      status: async () => ({}),
      [Symbol.asyncDispose]: async () => {
        model.isDisposed = true;
      },
    } as unknown as EngineClient,
  };
  return model;
}

export class FakeTerminal implements ChatTerminal {
  readonly isInteractive = true;
  readonly output: string[] = [];
  readonly notes: string[] = [];
  readonly errors: Error[] = [];
  readonly #inputs: string[];
  /** Ctrl-C comes after so many characters of an answer. */
  stopAfter = Number.POSITIVE_INFINITY;
  #controller = new AbortController();

  constructor(inputs: readonly string[]) {
    this.#inputs = [...inputs];
  }
  async read(): Promise<string | undefined> {
    return this.#inputs.shift();
  }
  stoppable<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.#controller = new AbortController();
    if (this.stopAfter === 0) this.#controller.abort();
    return work(this.#controller.signal);
  }
  /** Ctrl-C now. */
  interrupt(): void {
    this.#controller.abort();
  }
  print(text: string): void {
    this.output.push(text);
  }
  note(text: string): void {
    this.notes.push(text);
  }
  error(error: unknown): void {
    this.errors.push(error as Error);
  }
  bold(text: string): string {
    return text;
  }
  dim(text: string): string {
    return text;
  }
  openAnswer(splitter: ReasoningSplitter) {
    let [content, reasoning] = ["", ""];
    const take = (part: { content: string; reasoning: string }) => {
      content += part.content;
      reasoning += part.reasoning;
      if (content.length >= this.stopAfter) this.#controller.abort();
    };
    return {
      push: (text: string) => take(splitter.push(text)),
      end: () => take(splitter.end()),
      content: () => content,
      reasoning: () => reasoning,
    };
  }
  progress(): void {}
  summary(): void {}
}

export interface FakeChat {
  readonly chat: Chat;
  readonly terminal: FakeTerminal;
  readonly model: FakeModel;
}

export function fakeChat(
  inputs: readonly string[],
  options: {
    readonly answers?: readonly string[];
    readonly maxContextLen?: number;
    readonly template?: string;
    readonly settings?: Partial<ChatSettings>;
    readonly autosave?: Autosave;
    readonly host?: Partial<ChatHost>;
  } = {},
): FakeChat {
  const terminal = new FakeTerminal(inputs);
  const { maxContextLen = 500, template = bracketTemplate } = options;
  const model = fakeModel("first", maxContextLen, template);
  model.answers.push(...(options.answers ?? []));
  const host: ChatHost = {
    readTemplate: (name) => name,
    loadModel: () => Promise.reject(new Error("no other model")),
    ...options.host,
  };
  const settings = { ...defaultChatSettings, ...options.settings };
  const chat = new Chat({ terminal, host, model, settings, autosave: options.autosave });
  return { chat, terminal, model };
}
