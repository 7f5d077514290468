// Where a session counts which experts its routers chose: one counter per expert of every `route`
// op, in the order of the ops. The plan's binary form and the backends agree on it through this.
import type { Op, OpOf } from "./ops.ts";

export interface RouteCounters {
  readonly op: OpOf<"route">;
  /** The counter of its expert 0. */
  readonly first: number;
  readonly numExperts: number;
}

export function routeCounters(ops: readonly Op[]): RouteCounters[] {
  let first = 0;
  return ops
    .filter((op) => op.kind === "route")
    .map((op) => {
      const counters = { op, first, numExperts: op.logits.width };
      first += counters.numExperts;
      return counters;
    });
}

/** How often each expert was chosen since the session was loaded. */
export class ExpertCounts {
  readonly routes: readonly RouteCounters[];
  readonly words: BigUint64Array<ArrayBuffer>;

  constructor(ops: readonly Op[]) {
    this.routes = routeCounters(ops);
    // One at least: an empty array has no address. An array with a buffer of its own from the
    // start stays where it is; others move when a part of them is viewed.
    const count = this.routes.reduce((sum, { numExperts }) => sum + numExperts, 0);
    this.words = new BigUint64Array(new ArrayBuffer(8 * Math.max(1, count)));
  }

  /** Choices of each expert of a route. */
  of({ first, numExperts }: RouteCounters): number[] {
    return Array.from(this.words.subarray(first, first + numExperts), Number);
  }

  clear(): void {
    this.words.fill(0n);
  }
}
