// Finds a model's tuning while nobody waits for it: after the first answer, once the engine has had
// nothing to do for a moment, and with a pause whenever there is work again.
import type { LoadedModel } from "./loaded-model.ts";

/** A conversation's next message seldom comes sooner. */
const quietMs = 1000;

export class IdleTuner implements Disposable {
  readonly #model: LoadedModel;
  #steps: Generator<void> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #mayRun = false;

  constructor(model: LoadedModel) {
    this.#model = model;
  }

  /** The engine has no work left. */
  idle(): void {
    if (this.#mayRun || (this.#steps === undefined && !this.#model.lacksTuning)) return;
    this.#mayRun = true;
    this.#timer = setTimeout(() => this.#advance(), quietMs);
    // Tuning is no reason to keep a program alive.
    this.#timer.unref();
  }

  /** The engine has work: tuning goes on when that is done. */
  busy(): void {
    this.#mayRun = false;
    clearTimeout(this.#timer);
  }

  /** One step of some milliseconds, then whatever else the thread has to do. */
  #advance(): void {
    if (!this.#mayRun) return;
    this.#steps ??= this.#model.findTuning();
    let isDone: boolean | undefined = true;
    try {
      isDone = this.#steps.next().done;
    } catch {
      // Memory for the probe may be short: the model keeps running with the defaults.
    }
    if (isDone) {
      this.#steps = undefined;
      this.#mayRun = false;
    } else setImmediate(() => this.#advance());
  }

  [Symbol.dispose](): void {
    this.busy();
    this.#steps?.return(undefined);
    this.#steps = undefined;
  }
}
