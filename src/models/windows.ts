// Sliding windows: which layers have one, and what the user's choice makes of it.
import type { PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";

/**
 * Whether a layer is one of those with a window: as the file says, else all are but every
 * `period`-th.
 */
export function isWindowLayer({ windowPattern }: ModelConfig, index: number, period: number) {
  if (typeof windowPattern === "object") return windowPattern[index]!;
  const every = windowPattern ?? period;
  return every === 0 || index % every < every - 1;
}

/** Length of a window that the family applies as `own` (0 = none, all positions are visible). */
export function windowLenOf({ slidingWindow }: PlanOptions, own: number): number {
  if (slidingWindow === "auto") return own;
  return slidingWindow === "off" ? 0 : slidingWindow;
}
