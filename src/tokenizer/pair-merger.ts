// The merge loop that byte-pair encoding and SentencePiece share: a chain of symbols over a word's
// bytes, of which the best adjacent pair is joined until no pair is left. A heap keeps it at
// n log n for any input.

/** Says which pairs merge: SentencePiece by the score of the result, BPE by a list of pairs. */
export interface MergeRule {
  /** Lower merges first; Infinity when the two symbols do not merge. */
  priorityOf(symbols: PairMerger, left: number, right: number): number;
  /** The hash of two symbols' bytes; called only for pairs that have a priority. */
  joinHashes(leftHash: number, rightHash: number, rightSize: number): number;
}

/** Scratch larger than this is given back after the word. */
const KEPT_SYMBOLS = 2 ** 14;

export class PairMerger {
  /** The word's bytes; symbol `i` is `sizes[i]` of them at `starts[i]`, 0 once merged away. */
  bytes = new Uint8Array(KEPT_SYMBOLS);
  starts = new Int32Array(KEPT_SYMBOLS);
  sizes = new Int32Array(KEPT_SYMBOLS);
  hashes = new Int32Array(KEPT_SYMBOLS);
  private previous = new Int32Array(KEPT_SYMBOLS);
  private next = new Int32Array(KEPT_SYMBOLS);
  private count = 0;

  // The heap of candidate pairs, ordered by priority, then from left to right. Each merge adds at
  // most two candidates, so three per symbol are enough.
  private heapPriorities = new Float64Array(3 * KEPT_SYMBOLS);
  private heapLefts = new Int32Array(3 * KEPT_SYMBOLS);
  private heapRights = new Int32Array(3 * KEPT_SYMBOLS);
  private heapSizes = new Int32Array(3 * KEPT_SYMBOLS);
  private heapLength = 0;

  private readonly rule: MergeRule;

  constructor(rule: MergeRule) {
    this.rule = rule;
  }

  /** Forgets the last word and makes room for one of at most `maxBytes` bytes. */
  begin(maxBytes: number): void {
    this.count = 0;
    this.heapLength = 0;
    if (maxBytes > this.bytes.length) this.allocate(maxBytes);
    else if (this.bytes.length > KEPT_SYMBOLS && maxBytes <= KEPT_SYMBOLS) {
      this.allocate(KEPT_SYMBOLS);
    }
  }

  private allocate(capacity: number): void {
    this.bytes = new Uint8Array(capacity);
    this.starts = new Int32Array(capacity);
    this.sizes = new Int32Array(capacity);
    this.hashes = new Int32Array(capacity);
    this.previous = new Int32Array(capacity);
    this.next = new Int32Array(capacity);
    this.heapPriorities = new Float64Array(3 * capacity);
    this.heapLefts = new Int32Array(3 * capacity);
    this.heapRights = new Int32Array(3 * capacity);
    this.heapSizes = new Int32Array(3 * capacity);
  }

  /** Adds the next symbol of the word; symbols must lie side by side in `bytes`. */
  addSymbol(start: number, size: number, hash: number): void {
    const index = this.count++;
    this.starts[index] = start;
    this.sizes[index] = size;
    this.hashes[index] = hash;
    this.previous[index] = index - 1;
    this.next[index] = index + 1;
  }

  /** Merges until no pair is left. The symbols are then `first`, `after(first)`, …, until -1. */
  merge(): void {
    if (this.count === 0) return;
    this.next[this.count - 1] = -1;
    for (let right = 1; right < this.count; right++) this.consider(right - 1, right);
    const { sizes, previous, next, hashes, rule } = this;
    while (this.heapLength > 0) {
      const left = this.heapLefts[0]!;
      const right = this.heapRights[0]!;
      const size = this.heapSizes[0]!;
      this.pop();
      // A candidate is out of date when either symbol was merged since.
      const leftSize = sizes[left]!;
      const rightSize = sizes[right]!;
      if (leftSize === 0 || rightSize === 0 || leftSize + rightSize !== size) continue;
      hashes[left] = rule.joinHashes(hashes[left]!, hashes[right]!, rightSize);
      sizes[left] = size;
      sizes[right] = 0;
      const after = next[right]!;
      next[left] = after;
      if (after >= 0) {
        previous[after] = left;
        this.consider(left, after);
      }
      if (previous[left]! >= 0) this.consider(previous[left]!, left);
    }
  }

  get first(): number {
    return this.count === 0 ? -1 : 0;
  }

  after(symbol: number): number {
    return this.next[symbol]!;
  }

  private consider(left: number, right: number): void {
    const priority = this.rule.priorityOf(this, left, right);
    if (priority < Infinity)
      this.push(priority, left, right, this.sizes[left]! + this.sizes[right]!);
  }

  private push(priority: number, left: number, right: number, size: number): void {
    const { heapPriorities, heapLefts } = this;
    let at = this.heapLength++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const parentPriority = heapPriorities[parent]!;
      if (parentPriority < priority) break;
      if (parentPriority === priority && heapLefts[parent]! <= left) break;
      this.move(parent, at);
      at = parent;
    }
    this.place(at, priority, left, right, size);
  }

  private pop(): void {
    const { heapPriorities, heapLefts } = this;
    const length = --this.heapLength;
    const priority = heapPriorities[length]!;
    const left = heapLefts[length]!;
    let at = 0;
    for (let child = 1; child < length; child = 2 * at + 1) {
      if (child + 1 < length && this.isBefore(child + 1, child)) child++;
      const childPriority = heapPriorities[child]!;
      if (priority < childPriority) break;
      if (priority === childPriority && left <= heapLefts[child]!) break;
      this.move(child, at);
      at = child;
    }
    this.place(at, priority, left, this.heapRights[length]!, this.heapSizes[length]!);
  }

  private isBefore(a: number, b: number): boolean {
    const difference = this.heapPriorities[a]! - this.heapPriorities[b]!;
    return difference < 0 || (difference === 0 && this.heapLefts[a]! < this.heapLefts[b]!);
  }

  private move(from: number, to: number): void {
    this.heapPriorities[to] = this.heapPriorities[from]!;
    this.heapLefts[to] = this.heapLefts[from]!;
    this.heapRights[to] = this.heapRights[from]!;
    this.heapSizes[to] = this.heapSizes[from]!;
  }

  private place(at: number, priority: number, left: number, right: number, size: number): void {
    this.heapPriorities[at] = priority;
    this.heapLefts[at] = left;
    this.heapRights[at] = right;
    this.heapSizes[at] = size;
  }
}
