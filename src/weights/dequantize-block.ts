// The signature that every block format implements; one table in `dequantize.ts` gathers them.

/** Writes the elements of the quant block at byte `start` to `output` from `first` on. */
export type DequantizeBlock = (
  view: DataView,
  start: number,
  output: Float32Array,
  first: number,
) => void;
