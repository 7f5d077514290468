// Sliding windows: which layers have one, and what the user's choice makes of it.
import type { PlanOptions } from "./family.ts";
import type { ModelConfig } from "./model-config.ts";

/** Length of a window that the family applies as `own` (0 = none, all positions are visible). */
export function windowLenOf({ slidingWindow }: PlanOptions, own: number): number {
  if (slidingWindow === "auto") return own;
  return slidingWindow === "off" ? 0 : slidingWindow;
}

/**
 * Where windows alternate with full attention: whether layer `index` is a local one, and how far it
 * sees. As the file says, else all layers but every `period`-th are local, in models with a window.
 */
export function layerWindow(
  { windowLen, windowPattern }: ModelConfig,
  options: PlanOptions,
  index: number,
  period: number,
): { isLocal: boolean; windowLen: number } {
  if (windowLen === undefined) return { isLocal: false, windowLen: windowLenOf(options, 0) };
  const pattern = windowPattern ?? period;
  const isLocal =
    typeof pattern === "number" ? pattern === 0 || index % pattern < pattern - 1 : pattern[index]!;
  return { isLocal, windowLen: isLocal ? windowLenOf(options, windowLen) : 0 };
}
