// Where cached prefixes begin: KV of the same tokens differs with the adapters that made it.
import type { AdapterScale } from "./adapter-choice.ts";
import type { AdapterSet } from "./adapter-set.ts";
import type { Adapted } from "./sequence.ts";

export class CacheRoots {
  /** By the files and scales of adapters. */
  readonly #roots = new Map<string, number>();

  /** The scales that a request gets which wants these, and the root of the prefixes they make. */
  adapted(adapters: AdapterSet, wanted: readonly AdapterScale[] | undefined): Adapted {
    const scales = wanted === undefined ? adapters.ownScales : adapters.scales(wanted);
    const parts = adapters.choices.flatMap(({ path }, slot) => {
      return scales[slot] === 0 ? [] : [[path, scales[slot]]];
    });
    if (parts.length === 0) return { scales, cacheRoot: -1 };
    const key = JSON.stringify(parts);
    const cacheRoot = this.#roots.get(key) ?? -2 - this.#roots.size;
    this.#roots.set(key, cacheRoot);
    return { scales, cacheRoot };
  }
}
