// From messages to the prompt a model sees: renders the template with the model's own special
// tokens and encodes it, with BOS exactly once where the vocabulary asks for it.
import type { Tokenizer, TokenLimit } from "../tokenizer/tokenizer.ts";
import type { ChatTemplate, RenderVariables } from "./chat-template.ts";
import { detectReasoning, type ReasoningMarkers, ReasoningSplitter } from "./reasoning.ts";

export interface RenderedPrompt {
  readonly text: string;
  readonly tokenIds: Int32Array;
  /** Splits the answer to this prompt into reasoning and content. */
  createSplitter(): ReasoningSplitter;
}

export class ChatPrompt {
  readonly template: ChatTemplate;
  readonly reasoning: ReasoningMarkers | undefined;
  readonly #tokenizer: Tokenizer;
  readonly #specialVariables: Record<string, string>;

  constructor(tokenizer: Tokenizer, template: ChatTemplate) {
    this.template = template;
    this.#tokenizer = tokenizer;
    const { bosId, eosId, unknownId, paddingId } = tokenizer.specialTokens;
    const text = (id: number | undefined) => (id === undefined ? "" : tokenizer.tokenText(id));
    this.#specialVariables = {
      bos_token: text(bosId),
      eos_token: text(eosId),
      unk_token: text(unknownId),
      pad_token: text(paddingId),
    };
    this.reasoning = detectReasoning({
      templateSource: template.source,
      hasToken: (token) => tokenizer.findToken(token) !== undefined,
    });
  }

  renderText(variables: RenderVariables, now?: Date): string {
    return this.template.render({ ...this.#specialVariables, ...variables }, now);
  }

  render(variables: RenderVariables, limit?: TokenLimit): RenderedPrompt {
    const text = this.renderText({ add_generation_prompt: true, ...variables });
    return {
      text,
      tokenIds: this.encode(text, limit),
      createSplitter: () => new ReasoningSplitter(this.reasoning, this.#endsInsideReasoning(text)),
    };
  }

  /** Templates write BOS themselves; one that does not gets it here. */
  encode(text: string, limit?: TokenLimit): Int32Array {
    const tokenizer = this.#tokenizer;
    const tokenIds = tokenizer.encode(text, { addSpecial: false, parseSpecial: true, limit });
    const { bosId } = tokenizer.specialTokens;
    if (!tokenizer.addsBos || bosId === undefined || tokenIds[0] === bosId) return tokenIds;
    return Int32Array.from([bosId, ...tokenIds]);
  }

  /** True when the prompt opened the reasoning itself, so that the answer starts within it. */
  #endsInsideReasoning(text: string): boolean {
    if (this.reasoning === undefined) return false;
    const { open, close } = this.reasoning;
    return text.trimEnd().endsWith(open.trim()) && text.lastIndexOf(open) > text.lastIndexOf(close);
  }
}
