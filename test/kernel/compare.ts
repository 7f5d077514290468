// How results are compared: equal bits, or a bound on the normalised error. Failures say what was
// computed, where it differs and with which seed.
import { testSeed } from "./random.ts";

const hex = (word: number) => `0x${word.toString(16).padStart(8, "0")}`;

function wordsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

/** Throws unless `actual` has the bits of `expected`, which is `[rows, width]`. */
export function expectSameBits(
  actual: Float32Array,
  expected: Float32Array,
  width: number,
  what: string,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what}: ${actual.length} values, not ${expected.length}`);
  }
  const [a, b] = [wordsOf(actual), wordsOf(expected)];
  let numDifferent = 0;
  let first = -1;
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue;
    numDifferent++;
    if (first < 0) first = i;
  }
  if (first < 0) return;
  const place = `row ${Math.floor(first / width)}, column ${first % width}`;
  const values = `${actual[first]} (${hex(a[first]!)}), not ${expected[first]} (${hex(b[first]!)})`;
  throw new Error(
    `${what}: ${numDifferent} of ${a.length} differ, first ${place}: ${values}; ` +
      `TINFER_TEST_SEED=${testSeed}`,
  );
}

/** Throws unless sum((a - b)²) / sum(b²) is at most `most`, row by row: scales of rows differ. */
export function expectNear(
  actual: Float32Array,
  expected: Float32Array,
  width: number,
  most: number,
  what: string,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what}: ${actual.length} values, not ${expected.length}`);
  }
  for (let row = 0; row < expected.length / width; row++) {
    let error = 0;
    let power = 0;
    for (let i = row * width; i < (row + 1) * width; i++) {
      error += (actual[i]! - expected[i]!) ** 2;
      power += expected[i]! ** 2;
    }
    const nmse = power === 0 ? error : error / power;
    if (nmse <= most) continue;
    throw new Error(
      `${what}: row ${row} has NMSE ${nmse}, at most ${most} is allowed; ` +
        `TINFER_TEST_SEED=${testSeed}`,
    );
  }
}
