// Random weights of any type: normal values of standard deviation 1 / sqrt(cols), as trained ones
// have, quantised. Activations of a random model stay finite with them.
import type { QuantType } from "../weights/quant-types.ts";
import { quantTypeInfo } from "../weights/quant-types.ts";
import { floatMatrix, quantizeMatrix } from "../weights/quantize.ts";

/** Weights made once and repeated: a pass over them is as long as over different ones. */
const patternElements = 2 ** 18;

/** Makes the weights of one model; every type and width is quantised once. */
export class RandomWeights {
  readonly #seed: number;
  readonly #patterns = new Map<string, Uint8Array>();

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** `bytes` bytes of blocks of `type` in chunks, beginning at another block for each `index`. */
  *blocks(type: QuantType, bytes: number, cols: number, index: number): Generator<Uint8Array> {
    const pattern = this.#pattern(type, cols);
    const { quantBlockBytes } = quantTypeInfo(type);
    // 7919 is a prime: neighbouring tensors begin far from each other.
    const first = (index * 7919 * quantBlockBytes) % pattern.length;
    let left = bytes;
    for (let start = first; left > 0; start = 0) {
      const chunk = pattern.subarray(start, start + left);
      yield chunk;
      left -= chunk.length;
    }
  }

  #pattern(type: QuantType, cols: number): Uint8Array {
    const key = `${type} ${cols}`;
    let pattern = this.#patterns.get(key);
    if (pattern === undefined) {
      const values = normals(patternElements, 1 / Math.sqrt(cols), this.#seed);
      pattern = quantizeMatrix(type, floatMatrix(values, patternElements));
      this.#patterns.set(key, pattern);
    }
    return pattern;
  }
}

/** Normal values by pairs (Box and Muller). */
function normals(count: number, deviation: number, seed: number): Float32Array {
  const random = xorshift(seed);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log((random() + 1) / 2 ** 32));
    const angle = (2 * Math.PI * random()) / 2 ** 32;
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Marsaglia's xorshift32 (Journal of Statistical Software 8, 14): 32 random bits a call. */
function xorshift(seed: number): () => number {
  let state = (seed * 2654435769 + 1) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
