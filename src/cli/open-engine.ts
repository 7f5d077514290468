// Loads a model for a command: with a progress bar where it takes long, and Ctrl-C at any time.
import { type ContextFacts, contextWarning } from "../engine/context-limits.ts";
import { Engine } from "../engine/engine.ts";
import type { ModelOptions } from "../engine/options.ts";
import { formatBytes, Progress, warn } from "./terminal.ts";

/** A load that is faster than this shows nothing. */
const patienceMs = 500;

export async function openEngine(
  path: string,
  options: ModelOptions,
  signal: AbortSignal,
): Promise<Engine> {
  const start = performance.now();
  const progress = new Progress("loading", formatBytes);
  try {
    const engine = await Engine.open(path, options, {
      signal,
      onProgress: ({ doneBytes, totalBytes }) => {
        if (performance.now() - start > patienceMs) progress.update(doneBytes, totalBytes);
      },
    });
    if (options.contextLen !== undefined) warnOfLongContext(engine.facts);
    return engine;
  } finally {
    progress.done();
  }
}

/** For contexts that were asked for. */
export function warnOfLongContext(facts: ContextFacts): void {
  const warning = contextWarning(facts);
  if (warning !== undefined) warn(warning);
}
