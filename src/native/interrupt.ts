// Stopping a step from outside while its thread is inside native code: by a signal for engines of
// this thread, by a cancel word in shared memory for those of a Worker.
import { native } from "./library.ts";

/** Stops every step of the engines that look at the word. */
export const cancelAll = -1;

/**
 * One i32 that the engine's steps look at between ops: the id of the request whose step is to
 * stop, or `cancelAll`. Any thread may write it.
 */
export type CancelWord = Int32Array<SharedArrayBuffer>;

export function makeCancelWord(): CancelWord {
  return new Int32Array(new SharedArrayBuffer(4));
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
