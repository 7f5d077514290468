// What is chosen for the machine and never changes a bit of a result; the fields and their meaning
// are those of kernels/tuning.zig.

export interface Tuning {
  readonly prefetchBytes: number;
  readonly streamBytes: number;
  readonly cachedStreamBytes: number;
  readonly rowsRegime: number;
  readonly spinLimit: number;
  readonly floatRowsRegime: number;
}

export const defaultTuning: Tuning = {
  prefetchBytes: 2048,
  streamBytes: 16 * 1024,
  cachedStreamBytes: 64 * 1024,
  rowsRegime: 4,
  spinLimit: 4000,
  floatRowsRegime: 12,
};

/** Where weights lie interleaved: up to about 32 rows take less time in the rows regime (Zen 4). */
export const interleavedTuning: Tuning = { ...defaultTuning, rowsRegime: 16, floatRowsRegime: 32 };

const mostBytes = 2 ** 24;
const bounds: Readonly<Record<keyof Tuning, number>> = {
  prefetchBytes: mostBytes,
  streamBytes: mostBytes,
  cachedStreamBytes: mostBytes,
  rowsRegime: 32,
  spinLimit: mostBytes,
  floatRowsRegime: 32,
};

/** True for a tuning with all fields in the bounds that the native library accepts. */
export function isTuning(value: unknown): value is Tuning {
  if (typeof value !== "object" || value === null) return false;
  const fields: Record<string, unknown> = { ...value };
  return Object.entries(bounds).every(([name, most]) => {
    const field = fields[name];
    return typeof field === "number" && Number.isInteger(field) && field >= 0 && field <= most;
  });
}

/** The words of the native record, in its order. */
export function tuningWords(tuning: Tuning): number[] {
  const { prefetchBytes, streamBytes, cachedStreamBytes } = tuning;
  const { rowsRegime, spinLimit, floatRowsRegime } = tuning;
  return [prefetchBytes, streamBytes, cachedStreamBytes, rowsRegime, spinLimit, floatRowsRegime];
}
