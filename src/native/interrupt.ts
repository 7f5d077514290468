// Stopping a step from outside while its thread is inside native code: by a signal for engines of
// this thread, by a cancel word in shared memory for those of a Worker.
import { native } from "./library.ts";

/** Stops every step of the engines that look at the word. */
export const cancelAll = -1;

/**
 * What the engine's steps look at between ops: the id of the request whose step is to stop, or
 * `cancelAll`; any thread may write it. After it the id of the step that runs now, or 0.
 */
export type CancelWord = Int32Array<SharedArrayBuffer>;

const wanted = 0;
const running = 1;

export function makeCancelWord(): CancelWord {
  return new Int32Array(new SharedArrayBuffer(8));
}

/** Stops the step of request `id`, unless another's is being stopped right now. */
export function stopStep(word: CancelWord, id: number): void {
  const present = Atomics.load(word, running);
  const isTaken = present !== 0 && present !== id && Atomics.load(word, wanted) === present;
  if (!isTaken) Atomics.store(word, wanted, id);
}

/** Stops every step from now on. */
export function stopAllSteps(word: CancelWord): void {
  Atomics.store(word, wanted, cancelAll);
}

/** Request `id`, 0 for none, is the one whose end would stop the step that begins. */
export function noteRunning(word: CancelWord, id: number): void {
  Atomics.store(word, running, id);
}

/** From now on SIGINT and SIGTERM stop steps at once; after the process has its own handlers. */
export function catchInterrupts(): void {
  native().tinfer_catch_interrupts();
}

/** Whether such a signal came; true before any JavaScript handler had its turn. */
export function isInterrupted(): boolean {
  return native().tinfer_is_interrupted() !== 0;
}

export function clearInterrupt(): void {
  native().tinfer_clear_interrupt();
}
