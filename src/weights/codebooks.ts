// The code books of the IQ1 to IQ3 types: sets of points of 8 or 4 weights, whose codes are the
// points' ranks. kernels/quant/codebooks.zig expands the same file for the kernels.
import sets from "../../kernels/quant/codebooks.txt" with { type: "text" };
import { assert } from "../core/errors.ts";

const iq2Levels = [8, 25, 43];
/** Weights per point, and what each digit of a point stands for. */
const books = {
  iq2_xxs: { dim: 8, levels: iq2Levels },
  iq2_xs: { dim: 8, levels: iq2Levels },
  iq2_s: { dim: 8, levels: iq2Levels },
  iq3_xxs: { dim: 4, levels: [4, 12, 20, 28, 36, 44, 52, 62] },
  iq3_s: { dim: 4, levels: [1, 3, 5, 7, 9, 11, 13, 15] },
  iq1_s: { dim: 8, levels: [-1, 0, 1] },
} as const;

export type CodeBookName = keyof typeof books;

const expanded = new Map<CodeBookName, Int8Array>();

/** The weights of the points in order, `dim` each. */
export function codeBook(name: CodeBookName): Int8Array {
  const known = expanded.get(name);
  if (known !== undefined) return known;
  const weights = expand(name);
  expanded.set(name, weights);
  return weights;
}

/** A line of the file is a name and, in hexadecimal, a bit for each point of the whole lattice. */
function expand(name: CodeBookName): Int8Array {
  const { dim, levels } = books[name];
  const line = sets.split("\n").find((text) => text.startsWith(`${name} `));
  assert(line !== undefined, `no code book ${name}`);
  const bits = Buffer.from(line.slice(name.length + 1), "hex");
  const weights: number[] = [];
  for (let point = 0; point < levels.length ** dim; point++) {
    if (((bits[point >> 3]! >> (point & 7)) & 1) === 0) continue;
    for (let i = 0, left = point; i < dim; i++, left = Math.floor(left / levels.length)) {
      weights.push(levels[left % levels.length]!);
    }
  }
  return Int8Array.from(weights);
}
