// How many generations may be under way: those that run plus a bounded queue. What is more is
// refused at once, with an estimate of when to come back.
import { RequestError, refuse } from "./request-error.ts";

/** Weight of the newest duration in the moving average. */
const newestShare = 0.2;
const longestRetrySeconds = 60;

export class Admission {
  readonly #maxRunning: () => number;
  readonly #maxWaiting: number;
  #admitted = 0;
  #averageMs = 1000;

  constructor(maxRunning: () => number, maxWaiting: number) {
    this.#maxRunning = maxRunning;
    this.#maxWaiting = maxWaiting;
  }

  /** Takes `count` places or none; throws when the queue has no room for all of them. */
  enter(count: number): void {
    const most = this.#maxRunning() + this.#maxWaiting;
    if (count > most) {
      const hint = "the operator can raise --parallel or --max-queue";
      throw refuse("n", `${count} answers are more than the ${most} places of this server`, hint);
    }
    if (this.#admitted + count > most) {
      const waiting = Math.max(0, this.#admitted - this.#maxRunning());
      const rounds = Math.ceil((waiting + count) / this.#maxRunning());
      const seconds = Math.ceil((rounds * this.#averageMs) / 1000);
      throw new RequestError(429, `the server is busy: ${this.#admitted} of ${most} places taken`, {
        code: "rate_limit_exceeded",
        hint: "try again later; the operator can raise --parallel or --max-queue",
        retryAfterSeconds: Math.min(Math.max(seconds, 1), longestRetrySeconds),
      });
    }
    this.#admitted += count;
  }

  /** Gives one place back; `ms` is how long it was held. */
  leave(ms: number): void {
    this.#admitted--;
    this.#averageMs += (ms - this.#averageMs) * newestShare;
  }
}
