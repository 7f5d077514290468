// Breaks streamed text between words at the right edge of the terminal. Text is written as soon
// as it comes; a word that then passes the edge is erased and written again on the next line.
// Code blocks are left to the terminal, so that copied code has its own line ends only.

const fence = "```";

export class WordWrap {
  readonly #columns: () => number;
  #column = 0;
  /** The unfinished word at the end of what is written. */
  #word = "";
  /** The line as far as it goes: tells where code begins and ends. */
  #line = "";
  #isCode = false;

  constructor(columns: () => number) {
    this.#columns = columns;
  }

  /** What to write for `text`. */
  push(text: string): string {
    let output = "";
    for (const part of text.split(/(\n|[^\S\n]+)/)) {
      if (part === "") continue;
      if (part === "\n") output += this.#endLine();
      else if (part.trim() === "") output += this.#addSpace(part);
      else output += this.#addWord(part);
    }
    return output;
  }

  #endLine(): string {
    if (this.#line.trimStart().startsWith(fence)) this.#isCode = !this.#isCode;
    this.#line = "";
    this.#word = "";
    this.#column = 0;
    return "\n";
  }

  #addSpace(space: string): string {
    this.#line += space;
    this.#word = "";
    // A space that falls on the edge is the line end.
    if (!this.#isWrapping() || this.#column < this.#columns()) {
      this.#column += Bun.stringWidth(space);
      return space;
    }
    this.#column = 0;
    return "\n";
  }

  #addWord(text: string): string {
    this.#line += text;
    const written = this.#word;
    this.#word += text;
    const width = Bun.stringWidth(text);
    const wordWidth = Bun.stringWidth(this.#word);
    const fits = this.#column + width <= this.#columns();
    // A word longer than a line has nowhere better to be; nor has one that begins the line.
    const startsLine = this.#column === Bun.stringWidth(written);
    if (fits || startsLine || wordWidth > this.#columns() || !this.#isWrapping()) {
      this.#column += width;
      return text;
    }
    this.#column = wordWidth;
    const back = Bun.stringWidth(written);
    return `${back === 0 ? "" : `\x1b[${back}D\x1b[K`}\n${this.#word}`;
  }

  #isWrapping(): boolean {
    return !this.#isCode && !this.#line.trimStart().startsWith(fence);
  }
}
