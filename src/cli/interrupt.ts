// Ctrl-C and termination as an AbortSignal: the first one stops the work in good order, a second
// one ends the program at once.
import { TinferError } from "../core/errors.ts";

export interface Interrupt extends Disposable {
  readonly signal: AbortSignal;
  /** Throws "cancelled" (exit code 130) when the signal was raised. */
  throwIfRaised(): void;
}

export function interruptSignal(): Interrupt {
  const controller = new AbortController();
  const onSignal = () => {
    if (controller.signal.aborted) process.kill(process.pid, "SIGKILL");
    controller.abort();
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) process.on(signal, onSignal);
  return {
    signal: controller.signal,
    throwIfRaised() {
      if (controller.signal.aborted) throw new TinferError("cancelled", "interrupted");
    },
    [Symbol.dispose]() {
      for (const signal of signals) process.off(signal, onSignal);
    },
  };
}
