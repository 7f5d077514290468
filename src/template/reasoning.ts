// Thinking models: which markers surround their reasoning, and the streaming split of an answer
// into reasoning and content.

export interface ReasoningMarkers {
  readonly open: string;
  readonly close: string;
  /** What an answer without reasoning begins with, where it is not the answer itself. */
  readonly answer?: string | undefined;
}

interface KnownMarkers extends ReasoningMarkers {
  /** Special tokens that give the format away where the template does not. */
  readonly tokens: readonly string[];
}

/** From the most to the least specific. */
const knownMarkers: readonly KnownMarkers[] = [
  { open: "<think>", close: "</think>", tokens: ["<think>", "</think>"] },
  { open: "[THINK]", close: "[/THINK]", tokens: ["[THINK]", "[/THINK]"] },
  { open: "<seed:think>", close: "</seed:think>", tokens: ["<seed:think>", "</seed:think>"] },
  {
    open: "<|START_THINKING|>",
    close: "<|END_THINKING|>",
    tokens: ["<|START_THINKING|>", "<|END_THINKING|>"],
  },
  {
    // gpt-oss: the answer is a second message in the channel "final".
    open: "<|channel|>analysis<|message|>",
    close: "<|end|><|start|>assistant<|channel|>final<|message|>",
    answer: "<|channel|>final<|message|>",
    tokens: ["<|channel|>", "<|message|>", "<|start|>"],
  },
  { open: "<|channel>thought", close: "<channel|>", tokens: ["<|channel>", "<channel|>"] },
];

export interface ReasoningSource {
  templateSource: string | undefined;
  /** Whether the vocabulary has this text as one special token. */
  hasToken(text: string): boolean;
}

/** The markers of a model, or undefined where neither template nor vocabulary shows any. */
export function detectReasoning(options: ReasoningSource): ReasoningMarkers | undefined {
  const { templateSource = "" } = options;
  const found =
    knownMarkers.find(({ close }) => templateSource.includes(close)) ??
    knownMarkers.find(({ open }) => templateSource.includes(open)) ??
    knownMarkers.find(({ tokens }) => tokens.every((token) => options.hasToken(token)));
  if (found === undefined) return undefined;
  const { open, close, answer } = found;
  return { open, close, answer };
}

/** Whether a rendered prompt leaves the model inside its reasoning: opened and not closed. */
export function endsInsideReasoning(
  prompt: string,
  markers: ReasoningMarkers | undefined,
): boolean {
  if (markers === undefined) return false;
  return prompt.trimEnd().endsWith(markers.open);
}

export interface SplitText {
  reasoning: string;
  content: string;
}

/**
 * Splits an answer as it streams. Reasoning is recognised only at the start of the answer:
 * a marker that content merely quotes stays content. Everything but the markers comes out.
 */
export class ReasoningSplitter {
  readonly #markers: ReasoningMarkers | undefined;
  #state: "start" | "inside" | "content";
  /** Text that may be the beginning of a marker. */
  #held = "";
  /** Whether an opening marker may still come: some models repeat the prompt's. */
  #mayOpen = true;

  constructor(markers: ReasoningMarkers | undefined, startsInside: boolean) {
    this.#markers = markers;
    this.#state = markers === undefined ? "content" : startsInside ? "inside" : "start";
  }

  push(text: string): SplitText {
    if (this.#markers === undefined || this.#state === "content") {
      return { reasoning: "", content: text };
    }
    this.#held += text;
    if (this.#mayOpen && !this.#readOpening(this.#markers)) {
      return { reasoning: "", content: "" };
    }
    return this.#split(this.#markers.close);
  }

  end(): SplitText {
    const rest = this.#held;
    this.#held = "";
    const isReasoning = this.#state === "inside";
    return { reasoning: isReasoning ? rest : "", content: isReasoning ? "" : rest };
  }

  /** False while white space and the part of a marker leave it open what comes. */
  #readOpening({ open, answer = "" }: ReasoningMarkers): boolean {
    const trimmed = this.#held.trimStart();
    const begins = (marker: string) => trimmed.length < marker.length && marker.startsWith(trimmed);
    if (begins(open) || begins(answer)) return false;
    this.#mayOpen = false;
    if (answer !== "" && trimmed.startsWith(answer)) {
      this.#held = trimmed.slice(answer.length);
      this.#state = "content";
      return true;
    }
    if (trimmed.startsWith(open)) {
      const blank = this.#held.slice(0, this.#held.length - trimmed.length);
      this.#held = blank + trimmed.slice(open.length);
      this.#state = "inside";
    } else if (this.#state === "start") this.#state = "content";
    return true;
  }

  #split(close: string): SplitText {
    const text = this.#held;
    this.#held = "";
    if (this.#state === "content") return { reasoning: "", content: text };
    const end = text.indexOf(close);
    if (end >= 0) {
      this.#state = "content";
      return { reasoning: text.slice(0, end), content: text.slice(end + close.length) };
    }
    const kept = partialMatchLen(text, close);
    this.#held = text.slice(text.length - kept);
    return { reasoning: text.slice(0, text.length - kept), content: "" };
  }
}

/** Length of the longest end of `text` that begins `marker`. */
function partialMatchLen(text: string, marker: string): number {
  for (let length = Math.min(text.length, marker.length - 1); length > 0; length--) {
    if (marker.startsWith(text.slice(text.length - length))) return length;
  }
  return 0;
}
