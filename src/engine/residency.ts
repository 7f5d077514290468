// Where a running model's weights lie, and how that changes while it runs: a piece of the file is
// copied between two steps, on the engine's own thread, so that nothing has to be locked. With
// `auto` that happens only while nobody waits for an answer.

import { TinferError } from "../core/errors.ts";
import type { LoadedModel } from "./loaded-model.ts";
import type { LoadMode, ModelOptions } from "./options.ts";

/** Nothing to do for this long, and the engine counts as idle. */
const idleMs = 300;
/** Time between two looks at whether it is. */
const lookMs = 50;

export class Residency implements Disposable {
  readonly #model: LoadedModel;
  readonly #isLocked: boolean;
  /** When the engine last had work; undefined: it has some now. */
  readonly #idleSince: () => number | undefined;
  #mode: LoadMode;
  /** Raised by every change, and so ends the work for the mode before. */
  #change = 0;

  constructor(
    model: LoadedModel,
    { load, lock }: Pick<ModelOptions, "load" | "lock">,
    idleSince: () => number | undefined,
  ) {
    this.#model = model;
    this.#mode = load;
    this.#isLocked = lock;
    this.#idleSince = idleSince;
  }

  get mode(): LoadMode {
    return this.#mode;
  }

  /** After the weights were brought in as the mode says: `auto` goes on by itself. */
  start(): void {
    if (this.#mode !== "auto" || this.#isLocked) return;
    // Without the memory after all, or with a file that cannot be read, the weights stay where
    // they are, as `status` says; a step that needs an unreadable page will fail loudly.
    this.#promote(this.#change).catch(() => {});
  }

  /** Resolves when it is so; with `auto` at once. Throws, and changes nothing, without memory. */
  async change(mode: LoadMode): Promise<void> {
    if (this.#isLocked) {
      throw new TinferError("unsupported", "the weights are locked in memory (--mlock)", {
        hint: "start without --mlock, or with the --load that you want",
      });
    }
    if (mode === "eager") this.#model.file.requireCopyMemory();
    const change = ++this.#change;
    this.#mode = mode;
    if (mode === "lazy") this.#model.dropCopies();
    for (const _ of this.#model.bringInAs(mode)) {
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#change !== change) return;
    }
    this.start();
  }

  /** Copies the weights to huge pages while the engine is idle. */
  async #promote(change: number): Promise<void> {
    const pieces = this.#model.promote(1);
    do await this.#idle(change);
    while (this.#change === change && !pieces.next().done);
  }

  /** Resolves when the engine has been idle for a while, or the mode has changed. */
  async #idle(change: number): Promise<void> {
    // Other work of this thread always gets a turn, at least.
    let waitMs = 0;
    do {
      await new Promise((resolve) => setTimeout(resolve, waitMs).unref());
      waitMs = lookMs;
      const since = this.#idleSince();
      if (since !== undefined && performance.now() - since > idleMs) return;
    } while (this.#change === change);
  }

  [Symbol.dispose](): void {
    this.#change++;
  }
}
