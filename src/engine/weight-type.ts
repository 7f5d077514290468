// A running model's weights in another type: made from the file that was loaded, never from what
// an earlier change made of it, in pieces between which the engine goes on.
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "../core/cache-folder.ts";
import { TinferError } from "../core/errors.ts";
import { type FileLock, isLock, lockNow, tryLock } from "../core/lock.ts";
import { readMixFacts } from "../models/mix-facts.ts";
import { findMix } from "../weights/quantize-mix.ts";
import { chooseTypes } from "../weights/quantize-types.ts";
import { rewriteModel } from "../weights/rewrite-model.ts";
import { withoutSplit } from "../weights/split-model.ts";
import type { LoadProgress } from "./model-file.ts";
import { openForWriting } from "./open-model.ts";

/** The name that stands for the weights as the file has them. */
export const ownWeights = "original";

const prefix = "weights-";

/** Who has a folder of weights holds the lock in it; `undefined`: another process has it. */
function tryOwn(folder: string): FileLock | undefined {
  const lock = tryLock(join(folder, "owner.lock"));
  return isLock(lock) ? lock : undefined;
}

/** Removes what processes left behind that were killed, as far as this user may. */
function removeLeft(parent: string): void {
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(prefix)) continue;
    try {
      using lock = tryOwn(join(parent, name));
      if (lock !== undefined) rmSync(join(parent, name), { recursive: true, force: true });
    } catch {
      // It stays, which is no reason not to go on.
    }
  }
}

/** A model file that only this process needs. */
export class TemporaryModel implements Disposable {
  readonly path: string;
  readonly #folder: string;
  readonly #lock: FileLock | undefined;

  constructor() {
    const parent = cacheFolder();
    try {
      mkdirSync(parent, { recursive: true });
      // Nobody else takes a new folder for one that was left.
      using _ = lockNow(join(parent, "new-weights.lock"));
      removeLeft(parent);
      this.#folder = mkdtempSync(join(parent, prefix));
      this.#lock = tryOwn(this.#folder);
    } catch (cause) {
      if (cause instanceof TinferError) throw cause;
      throw new TinferError("unreadable", `${parent} cannot be written`, {
        hint: "set XDG_CACHE_HOME to a folder on a disk with room for the new weights",
        cause,
      });
    }
    this.path = join(this.#folder, "model.gguf");
  }

  /** A mapping of the file lives on. */
  [Symbol.dispose](): void {
    this.#lock?.[Symbol.dispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Writes the model at `path`, a file or a folder, in the types of the mix `name` to `target`, step by step. */
export function* changeWeightType(
  path: string,
  name: string,
  target: string,
  numThreads: number,
): Generator<LoadProgress> {
  const mix = findMix(name);
  const input = openForWriting(path);
  const tensors = [...input.tensors.values()];
  const types = chooseTypes(tensors, readMixFacts(input.metadata), { mix });
  const content = tensors.map((source) => {
    return { source, type: types.get(source.name)!.type, importance: undefined };
  });
  const file = { path: target, metadata: withoutSplit(input.values), tensors: content };
  yield* rewriteModel(input, [file], numThreads);
}
