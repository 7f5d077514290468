// The machine's limits as a loaded model's own threads measure them: reading (the model's mapped
// weights, memory on huge pages, a buffer as large as the activations) and dot products.
import {
  type PeakKind,
  type Probe,
  type ProbedRate,
  peakKinds,
  type Session,
} from "../backend/backend.ts";
import { TinferError } from "../core/errors.ts";
import { isInterrupted } from "../native/interrupt.ts";
import { MemoryRegion, viewMemory } from "../native/memory.ts";
import { availableMemoryBytes } from "./machine.ts";

export interface MachineLimits {
  /** The most bytes per second that were read, of weights or huge pages. */
  readonly readBytesPerSecond: number;
  readonly weightsBytesPerSecond: number;
  readonly hugePagesBytesPerSecond: number;
  readonly oneThreadBytesPerSecond: number;
  /** From a buffer as large as a step's activations. */
  readonly activationBytesPerSecond: number;
  /** Operations per second of all threads; 0 = no such instruction. */
  readonly peaks: Readonly<Record<PeakKind, number>>;
  readonly oneThreadPeaks: Readonly<Record<PeakKind, number>>;
}

/**
 * As many bytes as a step reads are read over and over, or so many that caches keep little of them:
 * of 256 MiB two cores with 32 MiB each still found a tenth there.
 */
const mostBytes = 2 ** 30;

export interface Memory {
  readonly address: number;
  readonly bytes: number;
}

/** What alignment leaves between two tensors of a file at most. */
const mostGap = 2 ** 16;

/** The longest stretch of memory that the pieces cover, up to alignment. */
export function longestRun(pieces: readonly Memory[]): Memory {
  let longest: Memory = { address: 0, bytes: 0 };
  let run = longest;
  for (const piece of pieces.toSorted((a, b) => a.address - b.address)) {
    const gap = piece.address - (run.address + run.bytes);
    const end = piece.address + piece.bytes;
    // The same tensor may be listed twice.
    run = gap <= mostGap ? { ...run, bytes: Math.max(run.bytes, end - run.address) } : piece;
    if (run.bytes > longest.bytes) longest = run;
  }
  return longest;
}

/** How memory may be read; which is fastest depends on the CPU and its pages. */
const patterns = [
  { streams: 1, prefetchBytes: 0 },
  { streams: 1, prefetchBytes: 4096 },
  { streams: 4, prefetchBytes: 2560 },
  { streams: 4, prefetchBytes: 512 },
] as const;

const bestOf = (rates: readonly ProbedRate[]) => Math.max(...rates.map(({ best }) => best));

/**
 * Keeps the best of all samples: other programs and the host take something off every sample, and
 * a limit is what is there without them.
 */
export class LimitProbe implements Disposable {
  readonly #session: Session;
  readonly #numThreads: number;
  readonly #weights: Memory;
  readonly #hugePages: MemoryRegion;
  readonly #activations: MemoryRegion;
  /** Which memory and pattern was read fastest: a place in the list that `sample` makes. */
  #fastest = { way: 0, rate: 0 };
  readonly #best = {
    ...{ weights: 0, hugePages: 0, oneThread: 0, activations: 0 },
    peaks: { int8: 0, bf16: 0, f32: 0 },
    oneThreadPeaks: { int8: 0, bf16: 0, f32: 0 },
  };

  /** `weights`: mapped memory of the model; `activationBytes`: what a step's ops hand on. */
  constructor(session: Session, numThreads: number, weights: Memory, activationBytes: number) {
    this.#session = session;
    this.#numThreads = numThreads;
    this.#weights = { ...weights, bytes: Math.min(weights.bytes, mostBytes) };
    using cleanup = new DisposableStack();
    // A model that fits the cache is compared with what else fits it.
    const room = Math.floor(availableMemoryBytes() / 4);
    const bytes = Math.max(2 ** 20, Math.min(this.#weights.bytes, room));
    this.#hugePages = cleanup.use(new MemoryRegion(bytes, "huge", "probe"));
    const held = Math.min(Math.max(activationBytes, 2 ** 16), mostBytes);
    this.#activations = cleanup.use(new MemoryRegion(held, "huge", "probe"));
    // Untouched pages would all be the one page of zeroes.
    for (const region of [this.#hugePages, this.#activations]) {
      new Uint8Array(viewMemory(region.address, region.bytes)).fill(1);
    }
    cleanup.move();
  }

  /** Memory that this takes, all of it resident. */
  get takenBytes(): number {
    return this.#hugePages.bytes + this.#activations.bytes;
  }

  /**
   * Takes one more sample of everything that all threads do, tens of milliseconds. Returns the
   * bytes per second that were read now, on average, in the way that has been fastest so far.
   */
  sample(): number {
    const best = this.#best;
    const weights = this.#read(this.#weights);
    const hugePages = this.#read(this.#hugePages);
    const ways = [...weights, ...hugePages];
    ways.forEach(({ best: rate }, way) => {
      if (rate <= this.#fastest.rate) return;
      this.#fastest = { way, rate };
    });
    best.weights = Math.max(best.weights, bestOf(weights));
    best.hugePages = Math.max(best.hugePages, bestOf(hugePages));
    best.activations = Math.max(best.activations, bestOf(this.#read(this.#activations)));
    this.#samplePeaks(best.peaks, this.#numThreads);
    return ways[this.#fastest.way]!.mean;
  }

  /** The same by one thread alone. */
  sampleOneThread(): void {
    const best = this.#best;
    const bytes = [this.#weights, this.#hugePages].map((memory) => bestOf(this.#read(memory, 1)));
    best.oneThread = Math.max(best.oneThread, ...bytes);
    this.#samplePeaks(best.oneThreadPeaks, 1);
  }

  #read({ address, bytes }: Memory, numThreads = this.#numThreads): ProbedRate[] {
    return patterns.map((pattern) => {
      return this.#probe({ kind: "read", numThreads, address, bytes, ...pattern });
    });
  }

  /** One measurement: together they take seconds, which Ctrl-C does not wait for. */
  #probe(probe: Probe): ProbedRate {
    if (isInterrupted()) throw new TinferError("cancelled", "interrupted");
    return this.#session.probe(probe);
  }

  #samplePeaks(best: Record<PeakKind, number>, numThreads: number): void {
    for (const kind of peakKinds) {
      best[kind] = Math.max(best[kind], this.#probe({ kind, numThreads }).best);
    }
  }

  get limits(): MachineLimits {
    const { weights, hugePages, oneThread, activations, peaks, oneThreadPeaks } = this.#best;
    return {
      readBytesPerSecond: Math.max(weights, hugePages, oneThread),
      weightsBytesPerSecond: weights,
      hugePagesBytesPerSecond: hugePages,
      oneThreadBytesPerSecond: oneThread,
      activationBytesPerSecond: Math.max(activations, weights, hugePages),
      peaks: { ...peaks },
      oneThreadPeaks: { ...oneThreadPeaks },
    };
  }

  [Symbol.dispose](): void {
    this.#activations[Symbol.dispose]();
    this.#hugePages[Symbol.dispose]();
  }
}
