// From typed lines to messages: a message between triple quotes may have many lines.
import { TinferError } from "../core/errors.ts";

const fence = '"""';

export class MessageReader {
  #lines: string[] | undefined;

  /** Inside triple quotes: the message goes on. */
  get isOpen(): boolean {
    return this.#lines !== undefined;
  }

  /** The message that this line completes, if it does. */
  push(line: string): string | undefined {
    if (this.#lines === undefined) {
      if (!line.trimStart().startsWith(fence)) return line;
      this.#lines = [];
      const opening = line.trimStart().slice(fence.length);
      // The opening quotes on a line of their own begin no empty line.
      return opening.trim() === "" ? undefined : this.#add(opening);
    }
    return this.#add(line);
  }

  #add(text: string): string | undefined {
    const lines = this.#lines!;
    if (!text.trimEnd().endsWith(fence)) {
      lines.push(text);
      return undefined;
    }
    const last = text.trimEnd().slice(0, -fence.length);
    // The closing quotes on a line of their own end no empty line.
    if (last !== "") lines.push(last);
    this.#lines = undefined;
    return lines.join("\n");
  }

  /** Forgets an unfinished message. */
  reset(): void {
    this.#lines = undefined;
  }

  /** Throws when the input ended inside triple quotes. */
  end(): void {
    if (!this.isOpen) return;
    this.reset();
    throw new TinferError("usage", `the message that ${fence} opened has no end`, {
      hint: `close it with a line ${fence}`,
    });
  }
}
