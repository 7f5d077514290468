// Long work on the engine's thread: in pieces between which everything else has its turn, and what
// must not run at the same time one after the other.
import { TinferError } from "../core/errors.ts";

/** Who waits for long work: may stop it and sees how far it is. */
export interface Watch<P> {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: P) => void) | undefined;
}

/**
 * The result of the pieces, with turns for the thread's other work in between. Throws "cancelled"
 * between two pieces once the signal is raised.
 */
export async function inTurns<P, R>(pieces: Generator<P, R>, watch: Watch<P>): Promise<R> {
  using cleanup = new DisposableStack();
  cleanup.defer(() => void pieces.return(undefined as R));
  for (;;) {
    if (watch.signal?.aborted) throw new TinferError("cancelled", "interrupted");
    const { done, value } = pieces.next();
    if (done) return value;
    watch.onProgress?.(value);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Work that runs one after the other, in the order in which it came. */
export class Queue {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` once everything before it has ended. */
  run<T>(work: () => Promise<T> | T): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }
}
