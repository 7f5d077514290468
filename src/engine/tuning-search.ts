// Chooses a tuning by timing steps: one parameter after the other, candidates in turn, of each its
// best time. What is not clearly better than the default stays the default: noise changes nothing.
import { defaultTuning, type Tuning } from "../backend/tuning.ts";
import { isFloat8 } from "../weights/float8.ts";
import { sourceTypes } from "../weights/quantize.ts";

/** Milliseconds of one step of `numRows` activation rows. */
export type MeasureStep = (tuning: Tuning, numRows: number) => number;

/** Measured milliseconds; with what lies between them a first start spends about a second. */
const defaultBudgetMs = 700;

/** Least milliseconds of a step over the even and over the odd rounds. */
type Times = readonly [even: number, odd: number];

/** Less than this part of the other's time, in both halves: noise seldom strikes the same twice. */
const clearly = 0.97;
const clearlyLess = (a: Times, b: Times) => a[0] < b[0] * clearly && a[1] < b[1] * clearly;
const leastRounds = 4;

/** Values to try, rows to try them with, and the share of the budget. */
interface Trial {
  readonly field: keyof Tuning;
  readonly values: readonly number[];
  readonly numRows: number;
  readonly share: number;
}

/*
 * The spin limit is not among them: what it is good for depends on which other programs run, which
 * a second cannot tell.
 */
const trials: readonly Trial[] = [
  { field: "prefetchBytes", values: [64, 512, 1536, 2560, 4096], numRows: 1, share: 0.4 },
  { field: "streamBytes", values: [4096, 65536], numRows: 1, share: 0.1 },
  { field: "cachedStreamBytes", values: [16384, 262144], numRows: 12, share: 0.15 },
];
const crossoverShare = 0.35;
const crossoverRows = [2, 4, 5, 6, 8, 12, 16, 24, 32] as const;

/** The field that says up to how many rows weights of a kind take the rows regime. */
export type Crossover = "rowsRegime" | "floatRowsRegime";

export function crossoverOf(weightType: string): Crossover {
  const isFloat = sourceTypes.some((type) => type === weightType) || isFloat8(weightType);
  return isFloat ? "floatRowsRegime" : "rowsRegime";
}

/**
 * Yields after each step, so that something else may have its turn; returns the tuning, which is
 * `start` but for what is clearly faster.
 */
export function* searchTuning(
  measure: MeasureStep,
  crossover: Crossover,
  start = defaultTuning,
  budgetMs = defaultBudgetMs,
): Generator<void, Tuning> {
  let tuning = start;
  for (const { field, values, numRows, share } of trials) {
    const candidates = [tuning, ...values.map((value) => ({ ...tuning, [field]: value }))];
    // These fields are of the rows regime: as many rows are to take it.
    const steps = candidates.map((candidate) => {
      return { tuning: { ...candidate, [crossover]: crossoverRows.at(-1)! }, numRows };
    });
    const times = yield* bestTimes(measure, steps, budgetMs * share);
    const [own] = times;
    let best = 0;
    times.forEach((time, index) => {
      const isLess = time[0] + time[1] < times[best]![0] + times[best]![1];
      if (isLess && clearlyLess(time, own!)) best = index;
    });
    tuning = candidates[best]!;
  }
  return { ...tuning, [crossover]: yield* searchCrossover(measure, crossover, tuning, budgetMs) };
}

/**
 * The most rows that are faster in the rows regime. It moves from where it is only as far as the
 * regimes differ clearly.
 */
function* searchCrossover(
  measure: MeasureStep,
  crossover: Crossover,
  tuning: Tuning,
  budgetMs: number,
): Generator<void, number> {
  const steps = crossoverRows.flatMap((numRows) => [
    { tuning: { ...tuning, [crossover]: crossoverRows.at(-1)! }, numRows },
    { tuning: { ...tuning, [crossover]: 0 }, numRows },
  ]);
  const times = yield* bestTimes(measure, steps, budgetMs * crossoverShare);
  const start = tuning[crossover];
  let chosen = start;
  const regimes = crossoverRows.map((numRows, i) => {
    return { numRows, rowsMs: times[2 * i]!, tileMs: times[2 * i + 1]! };
  });
  for (const { numRows, rowsMs, tileMs } of regimes) {
    if (numRows > chosen && clearlyLess(rowsMs, tileMs)) chosen = numRows;
    else if (numRows > chosen) break;
  }
  if (chosen > start) return chosen;
  for (const { numRows, rowsMs, tileMs } of regimes.toReversed()) {
    if (numRows > chosen) continue;
    if (!clearlyLess(tileMs, rowsMs)) break;
    chosen = numRows - 1;
  }
  return chosen;
}

interface Step {
  readonly tuning: Tuning;
  readonly numRows: number;
}

/** All steps in turn until the budget is spent. */
function* bestTimes(
  measure: MeasureStep,
  steps: readonly Step[],
  budgetMs: number,
): Generator<void, Times[]> {
  const times = steps.map((): [number, number] => [
    Number.POSITIVE_INFINITY,
    Number.POSITIVE_INFINITY,
  ]);
  let spentMs = 0;
  for (let round = 0; round < leastRounds || spentMs < budgetMs; round++) {
    for (const [index, { tuning, numRows }] of steps.entries()) {
      const ms = measure(tuning, numRows);
      const half = round % 2;
      times[index]![half] = Math.min(times[index]![half]!, ms);
      spentMs += ms;
      yield;
      // A machine this slow keeps the defaults rather than be held up.
      if (spentMs > 2 * budgetMs) return steps.map((): Times => [1, 1]);
    }
  }
  return times;
}
