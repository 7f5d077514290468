// Separates what is pasted from what is typed (terminals mark it, see ESC[?2004h), and keeps long
// pastes out of the input line: there a short mark stands for them until the line is sent.

export const startBracketedPaste = "\x1b[?2004h";
export const endBracketedPaste = "\x1b[?2004l";

const begin = "\x1b[200~";
const end = "\x1b[201~";

/** A paste with more lines than this is shown as a mark. */
const maxShownLines = 6;
const maxShownLen = 2000;

export interface InputPart {
  readonly kind: "keys" | "paste";
  readonly text: string;
}

export class PasteFilter {
  readonly #decoder = new TextDecoder();
  #held = "";
  #pasted: string | undefined;

  /** The parts that these bytes complete; a mark cut in two waits for its rest. */
  push(bytes: Uint8Array): InputPart[] {
    let text = this.#held + this.#decoder.decode(bytes, { stream: true });
    this.#held = "";
    const parts: InputPart[] = [];
    for (;;) {
      const mark = this.#pasted === undefined ? begin : end;
      const at = text.indexOf(mark);
      if (at < 0) break;
      this.#take(text.slice(0, at), parts);
      if (this.#pasted === undefined) this.#pasted = "";
      else {
        parts.push({ kind: "paste", text: cleanPaste(this.#pasted) });
        this.#pasted = undefined;
      }
      text = text.slice(at + mark.length);
    }
    const heldLen = this.#heldLen(text);
    this.#held = text.slice(text.length - heldLen);
    this.#take(text.slice(0, text.length - heldLen), parts);
    return parts;
  }

  #take(text: string, parts: InputPart[]): void {
    if (text === "") return;
    if (this.#pasted === undefined) parts.push({ kind: "keys", text });
    else this.#pasted += text;
  }

  /** Keys are held that may begin a mark: unless more comes soon they are just keys. */
  get isHoldingKeys(): boolean {
    return this.#pasted === undefined && this.#held !== "";
  }

  /** Gives the held keys out. */
  flushKeys(): InputPart[] {
    const parts: InputPart[] = [];
    if (this.isHoldingKeys) this.#take(this.#held, parts);
    if (this.#pasted === undefined) this.#held = "";
    return parts;
  }

  /** How much of the end may be the beginning of a mark. */
  #heldLen(text: string): number {
    const mark = this.#pasted === undefined ? begin : end;
    for (let length = Math.min(text.length, mark.length - 1); length > 0; length--) {
      if (mark.startsWith(text.slice(text.length - length))) return length;
    }
    return 0;
  }
}

/** Terminals send returns for line ends; other control characters are no text. */
function cleanPaste(text: string): string {
  const lines = text.replaceAll(/\r\n?/g, "\n");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed.
  return lines.replaceAll(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
}

export class LongTexts {
  readonly #texts = new Map<string, string>();

  /** `text` itself, or the mark that stands for it in the input line. */
  shorten(text: string): string {
    const numLines = text.split("\n").length;
    if (numLines <= maxShownLines && text.length <= maxShownLen) return text;
    const size = numLines > 1 ? `${numLines} lines` : `${text.length} characters`;
    const mark = `[text ${this.#texts.size + 1}: ${size}]`;
    this.#texts.set(mark, text);
    return mark;
  }

  /** The line with every mark replaced by its text. */
  expand(line: string): string {
    return line.replaceAll(/\[text \d+: \d+ (?:lines|characters)\]/g, (mark) => {
      return this.#texts.get(mark) ?? mark;
    });
  }
}
