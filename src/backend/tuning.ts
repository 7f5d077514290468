// What is chosen for the machine and never changes a bit of a result; the fields and their meaning
// are those of kernels/tuning.zig.

export interface Tuning {
  readonly prefetchBytes: number;
  readonly streamBytes: number;
  readonly cachedStreamBytes: number;
  readonly rowsRegime: number;
  readonly spinLimit: number;
}

export const defaultTuning: Tuning = {
  prefetchBytes: 512,
  streamBytes: 16 * 1024,
  cachedStreamBytes: 64 * 1024,
  rowsRegime: 8,
  spinLimit: 4000,
};

/** The words of the native record, in its order. */
export function tuningWords(tuning: Tuning): number[] {
  const { prefetchBytes, streamBytes, cachedStreamBytes, rowsRegime, spinLimit } = tuning;
  return [prefetchBytes, streamBytes, cachedStreamBytes, rowsRegime, spinLimit];
}
