// A model in the chat: the engine that computes, and the text side that renders and tokenizes.
import type { EngineClient } from "../engine/client.ts";
import type { ModelText } from "../engine/model-text.ts";
import { ChatPrompt } from "../template/chat-prompt.ts";
import { resolveChatTemplate } from "../template/resolve.ts";

export interface ChatModel {
  /** What the person called it, a path made absolute; undefined: the built-in model. */
  readonly argument: string | undefined;
  /** For people: the name in the file, or the file's name. */
  readonly label: string;
  readonly engine: EngineClient;
  readonly text: Pick<ModelText, "tokenizer" | "chatTemplate">;
  /** Built-in template to use where the file has none: for the built-in model alone. */
  readonly fallbackTemplate: string | undefined;
  /** Tokens that end an answer. */
  readonly endIds: readonly number[];
}

/** What the chat asks of the command line's side. */
export interface ChatHost {
  /** Locates and loads a model; rejects when it cannot, with "cancelled" once the signal comes. */
  loadModel(argument: string, signal: AbortSignal): Promise<ChatModel>;
  /** Name of a built-in template, or the text of the file that is named. */
  readTemplate(nameOrFile: string): string;
}

/** The prompt renderer of a model; `template` as in `--template`, undefined for the model's own. */
export function chatPromptOf(
  model: Pick<ChatModel, "text" | "fallbackTemplate">,
  template: string | undefined,
  readTemplate: ChatHost["readTemplate"],
): ChatPrompt {
  const { tokenizer, chatTemplate } = model.text;
  const fallback = chatTemplate ? undefined : model.fallbackTemplate;
  const override = template === undefined ? fallback : readTemplate(template);
  return new ChatPrompt(
    tokenizer,
    resolveChatTemplate({
      fromFile: chatTemplate,
      ...(override === undefined ? {} : { override }),
    }),
  );
}
