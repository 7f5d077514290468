// What each op of a plan took, summed over steps, per thread: filled in by a session that was told
// to record (kernels/clock.zig holds the same record).
const wordsPerEntry = 2;

export class OpTimes {
  /** OpTime [threads][ops]: nanoseconds in the op, and of these at barriers. */
  readonly words: BigUint64Array<ArrayBuffer>;
  readonly numOps: number;
  readonly numThreads: number;

  constructor(numOps: number, numThreads: number) {
    this.numOps = numOps;
    this.numThreads = numThreads;
    this.words = new BigUint64Array(numOps * numThreads * wordsPerEntry);
  }

  /** From the op's start to its end on the first thread; without gaps between ops. */
  wallMs(op: number): number {
    return Number(this.words[op * wordsPerEntry]) / 1e6;
  }

  /** All threads' time at the op's barriers, as a share of all threads' time in it. */
  waitingShare(op: number): number {
    let wall = 0;
    let waited = 0;
    for (let thread = 0; thread < this.numThreads; thread++) {
      const at = (thread * this.numOps + op) * wordsPerEntry;
      wall += Number(this.words[at]);
      waited += Number(this.words[at + 1]);
    }
    return wall === 0 ? 0 : waited / wall;
  }

  /** For executors in TypeScript. */
  add(op: number, wallMs: number): void {
    this.words[op * wordsPerEntry]! += BigInt(Math.round(wallMs * 1e6));
  }

  clear(): void {
    this.words.fill(0n);
  }
}
