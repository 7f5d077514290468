// The counter-based random stream of the sampler: Philox4x32-10 keyed by the seed, counted by the
// index of the drawn token. kernels/cpu/sample_math.zig computes the same numbers.

/** Four 32-bit words. */
export type Words = readonly [number, number, number, number];

const multiplierA = 0xd2511f53;
const multiplierB = 0xcd9e8d57;
const keyStepLow = 0x9e3779b9;
const keyStepHigh = 0xbb67ae85;

/** Upper 32 bits of the 64-bit product of two 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  // Both sums stay under 2^33: exact in a double.
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = (middle % 0x10000) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/** Ten rounds of Philox4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"). */
export function philox(counter: Words, keyLow: number, keyHigh: number): Words {
  let [c0, c1, c2, c3] = counter;
  let k0 = keyLow;
  let k1 = keyHigh;
  for (let round = 0; round < 10; round++) {
    const next0 = (multiplyHigh(multiplierB, c2) ^ c1 ^ k0) >>> 0;
    const next2 = (multiplyHigh(multiplierA, c0) ^ c3 ^ k1) >>> 0;
    c1 = Math.imul(multiplierB, c2) >>> 0;
    c3 = Math.imul(multiplierA, c0) >>> 0;
    c0 = next0;
    c2 = next2;
    k0 = (k0 + keyStepLow) >>> 0;
    k1 = (k1 + keyStepHigh) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Number `drawIndex` of the seed's stream, uniform in [0, 1) with 53 bits. */
export function uniform(seedLow: number, seedHigh: number, drawIndex: number): number {
  const [high, low] = philox([drawIndex, 0, 0, 0], seedLow, seedHigh);
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
}

/** A 64-bit key as two words. */
export interface SeedWords {
  readonly seedLow: number;
  readonly seedHigh: number;
}

/**
 * The key of one of the sequences that a request generates from a seed (0 to 2^53 - 1). The first
 * has the seed itself, so that n = 1 and the first of n = 4 are the same text; the others are
 * drawn from the seed, with a counter that no token uses.
 */
export function sequenceSeed(seed: number, sequenceIndex: number): SeedWords {
  const seedLow = seed >>> 0;
  const seedHigh = Math.floor(seed / 2 ** 32);
  if (sequenceIndex === 0) return { seedLow, seedHigh };
  const [low, high] = philox([0, sequenceIndex, 0, 0], seedLow, seedHigh);
  return { seedLow: low, seedHigh: high };
}

/** A seed for a request that names none. */
export function randomSeed(): number {
  const words = crypto.getRandomValues(new Uint32Array(2));
  return (words[0]! & 0x1fffff) * 2 ** 32 + words[1]!;
}
