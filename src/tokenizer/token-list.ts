// A list of token ids that grows as encoding goes on, and says when it has enough of them.

export class TokenList {
  private ids = new Int32Array(256);
  private count = 0;
  private readonly mostWanted: number;

  constructor(mostWanted = Number.POSITIVE_INFINITY) {
    this.mostWanted = mostWanted;
  }

  /** Whether there are more ids than wanted: encoding may stop after a word. */
  get isFull(): boolean {
    return this.count > this.mostWanted;
  }

  get length(): number {
    return this.count;
  }

  push(tokenId: number): void {
    if (this.count === this.ids.length) {
      const larger = new Int32Array(this.ids.length * 2);
      larger.set(this.ids);
      this.ids = larger;
    }
    this.ids[this.count++] = tokenId;
  }

  at(index: number): number {
    return this.ids[index]!;
  }

  /** Forgets everything after the first `length` ids. */
  truncate(length: number): void {
    this.count = length;
  }

  toInt32Array(): Int32Array {
    return this.ids.slice(0, this.count);
  }
}
