// The model that a server serves: its names, its text side and its engine, from "loading" on.
import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { basename } from "node:path";
import { TinferError } from "../core/errors.ts";
import type { AdapterScale } from "../engine/adapter-choice.ts";
import type { EngineClient } from "../engine/client.ts";
import { requireDecoder } from "../engine/model-file.ts";
import { type ModelText, openModelText } from "../engine/model-text.ts";
import type { ModelOptions } from "../engine/options.ts";
import { startEngineWorker } from "../engine/worker.ts";
import { ChatPrompt } from "../template/chat-prompt.ts";
import { resolveChatTemplate } from "../template/resolve.ts";
import { RequestError } from "./request-error.ts";

export interface ModelSource {
  readonly path: string;
  /** What answers call the model. */
  readonly id: string;
  /** Further names that requests may use. */
  readonly aliases: readonly string[];
  readonly options: ModelOptions;
  /** Name or text of a chat template instead of the file's own. */
  readonly template: string | undefined;
}

/** A model that is ready to answer: the file's, or the same with one of its adapters. */
export interface ServedModel {
  readonly id: string;
  /** The model without an adapter, where this is one with. */
  readonly parentId: string | undefined;
  /** What its answers get; undefined: every adapter by its own scale. */
  readonly adapters: readonly AdapterScale[] | undefined;
  readonly client: EngineClient;
  readonly text: ModelText;
  /** The chat template, or the error that says why there is none. */
  readonly chat: ChatPrompt | TinferError;
  /** Of the model file. */
  readonly bytes: number;
  readonly modifiedAt: Date;
  /** Names this state of the file: a hash of path, size and time, not of the content. */
  readonly digest: string;
}

export class ModelHost {
  readonly id: string;
  readonly #names: ReadonlySet<string>;
  /** Names of adapters by the names of models with them. */
  readonly #adapterNames = new Map<string, string>();
  #ready: ServedModel | undefined;
  #failure: unknown;

  constructor({ id, aliases, path, options }: ModelSource) {
    this.id = id;
    const file = basename(path);
    this.#names = new Set([id, ...aliases, file, file.replace(/\.gguf$/i, "")]);
    for (const { name } of options.adapters) {
      this.#adapterNames.set(`${id}:${name}`, name);
      if (!this.#names.has(name)) this.#adapterNames.set(name, name);
    }
  }

  async load(source: ModelSource): Promise<ServedModel> {
    try {
      // The Worker loads weights while this thread reads the vocabulary.
      // How many may wait is for the server's admission to say, before an answer begins.
      const options = { ...source.options, maxWaiting: Number.POSITIVE_INFINITY };
      const starting = startEngineWorker(source.path, options);
      const [client, text] = await Promise.all([starting, readText(source.path)]);
      const { size, mtime } = statSync(source.path);
      this.#ready = {
        id: this.id,
        ...{ parentId: undefined, adapters: undefined },
        client,
        text,
        chat: chatPrompt(text, source.template),
        bytes: size,
        modifiedAt: mtime,
        digest: createHash("sha256")
          .update(`${source.path}\0${size}\0${mtime.getTime()}`)
          .digest("hex"),
      };
      return this.#ready;
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  get state(): "loading" | "ready" | "failed" {
    if (this.#ready !== undefined) return "ready";
    return this.#failure === undefined ? "loading" : "failed";
  }

  /** The model when it is ready. */
  peek(): ServedModel | undefined {
    return this.#ready;
  }

  /** The model, or a 503 while it is not ready. */
  get(): ServedModel {
    if (this.#ready !== undefined) return this.#ready;
    throw new RequestError(503, `the model ${this.id} is ${this.state}`, {
      code: "model_not_ready",
      hint: "GET /health answers 200 once it is ready",
      retryAfterSeconds: 1,
    });
  }

  /** The model as the file has it, then the same with each adapter alone. */
  all(): ServedModel[] {
    const model = this.get();
    const { adapters } = model.client.facts;
    return [this.#with(model, undefined), ...adapters.map(({ name }) => this.#with(model, name))];
  }

  /**
   * The model under the name that a request gives: the file's own, or one with an adapter. No
   * name means the one model there is, with all its adapters by their scales.
   */
  named(given: string | null | undefined): ServedModel {
    if (given === undefined || given === null) return this.get();
    // Ollama's clients may add the tag that stands for "no tag".
    for (const name of [given, given.replace(/:latest$/, "")]) {
      const adapter = this.#adapterNames.get(name);
      if (adapter !== undefined || this.#names.has(name)) return this.#with(this.get(), adapter);
    }
    throw new RequestError(404, `the model '${given}' does not exist`, {
      field: "model",
      code: "model_not_found",
      hint: `this server has ${[...this.#names, ...this.#adapterNames.keys()].join(", ")}`,
    });
  }

  /** The model with one adapter, or with none. */
  #with(model: ServedModel, adapter: string | undefined): ServedModel {
    const adapters = model.client.facts.adapters.filter(({ name }) => name === adapter);
    if (adapter === undefined) return { ...model, adapters };
    return { ...model, id: `${model.id}:${adapter}`, parentId: model.id, adapters };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ready?.client[Symbol.asyncDispose]();
  }
}

async function readText(path: string): Promise<ModelText> {
  return openModelText(path);
}

function chatPrompt(text: ModelText, override: string | undefined): ChatPrompt | TinferError {
  try {
    const choice = { fromFile: text.chatTemplate, ...(override === undefined ? {} : { override }) };
    return new ChatPrompt(text.tokenizer, resolveChatTemplate(choice));
  } catch (error) {
    // A template that the operator names must be right; a file without one can still complete.
    if (override === undefined && error instanceof TinferError) return error;
    throw error;
  }
}

/** The chat template of the model; throws the 400 that names the way out. */
export function chatOf({ chat, client }: ServedModel): ChatPrompt {
  requireDecoder(client.facts);
  if (!(chat instanceof TinferError)) return chat;
  throw new RequestError(400, chat.message, {
    code: "no_chat_template",
    hint: "start `tinfer serve` with --template NAME, or send the bare text to /v1/completions",
  });
}
