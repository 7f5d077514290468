// Ctrl-C and termination as an AbortSignal: the first one stops the work in good order, a second
// one ends the program at once. Which signal it was is the exit code of a program that it stops.
import { constants } from "node:os";
import { TinferError } from "../core/errors.ts";
import { catchInterrupts, clearInterrupt, isInterrupted } from "../native/interrupt.ts";

export interface Interrupt extends Disposable {
  readonly signal: AbortSignal;
  /**
   * Throws "cancelled" (exit code 130 or 143) when the signal was raised; also in code that never
   * yields, where `signal` cannot change.
   */
  throwIfRaised(): void;
  /** The promise, or "cancelled" as soon as the signal is raised: for waits that cannot stop. */
  race<T>(promise: Promise<T>): Promise<T>;
}

export function interruptSignal(): Interrupt {
  const controller = new AbortController();
  const signals = ["SIGINT", "SIGTERM"] as const;
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) {
      // Without a listener the signal does what it does to every program.
      for (const signal of signals) process.removeAllListeners(signal);
      process.kill(process.pid, name);
    }
    process.exitCode = 128 + constants.signals[name];
    controller.abort();
  };
  const cancelled = () => new TinferError("cancelled", "interrupted");
  for (const signal of signals) process.on(signal, onSignal);
  // JavaScript sees the signal when native code returns: a step must end by itself.
  catchInterrupts();
  return {
    signal: controller.signal,
    throwIfRaised() {
      if (controller.signal.aborted || isInterrupted()) throw cancelled();
    },
    race(promise) {
      return new Promise((resolve, reject) => {
        const stop = () => reject(cancelled());
        if (controller.signal.aborted) stop();
        controller.signal.addEventListener("abort", stop, { once: true });
        promise
          .then(resolve, reject)
          .finally(() => controller.signal.removeEventListener("abort", stop));
      });
    },
    [Symbol.dispose]() {
      // Of a signal that native code has seen, the handler may not have had its turn yet.
      if (!isInterrupted()) for (const signal of signals) process.off(signal, onSignal);
      clearInterrupt();
    },
  };
}
