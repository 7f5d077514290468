// Ops of the reference backend that take each row by itself: norms, elementwise functions, copies.
import type { OpOf, RowNorm, Weight } from "../plan/ops.ts";
import { gated, unaryOf } from "./reference-activations.ts";
import { type ReferenceState, rowOf, rowsOf } from "./reference-state.ts";

export function gatherRows(state: ReferenceState, op: OpOf<"gatherRows">): void {
  for (let r = 0; r < state.step.numOutputs; r++) {
    rowOf(state, op.output, r).set(rowOf(state, op.input, state.step.outputRows[r]!));
  }
}

export function norm(state: ReferenceState, op: OpOf<"norm">): void {
  for (let row = 0; row < rowsOf(state.step, op.input); row++) {
    const x = rowOf(state, op.input, row);
    const y = rowOf(state, op.output, row);
    for (let start = 0; start < x.length; start += op.groupWidth) {
      const group = x.subarray(start, start + op.groupWidth);
      y.set(normalized(state, op.rowNorm, group, start), start);
    }
  }
}

/** `x` begins at `start` of its row; weights may be as wide as `x`, or as the row. */
export function normalized(
  state: ReferenceState,
  rowNorm: RowNorm,
  x: Float64Array,
  start = 0,
): Float64Array {
  const part = (vector: Weight | undefined) => {
    const values = vector && state.weightRow(vector, 0);
    return values?.length === x.length ? values : values?.subarray(start, start + x.length);
  };
  const weight = part(rowNorm.weight);
  const bias = part(rowNorm.bias);
  const mean = rowNorm.norm === "layer" ? x.reduce((sum, value) => sum + value, 0) / x.length : 0;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  const scale = 1 / Math.sqrt(variance + rowNorm.epsilon);
  return x.map((value, i) => (value - mean) * scale * (weight?.[i] ?? 1) + (bias?.[i] ?? 0));
}

export function rotations(state: ReferenceState, op: OpOf<"rotations">): void {
  const frequencies = state.weightRow(op.frequencies, 0);
  for (let t = 0; t < state.step.numTokens; t++) {
    const row = rowOf(state, op.output, t);
    for (let i = 0; i < frequencies.length; i++) {
      const angle = state.step.positions[t]! * frequencies[i]!;
      row[i] = Math.cos(angle) * op.magnitude;
      row[frequencies.length + i] = Math.sin(angle) * op.magnitude;
    }
  }
}

export function unary(state: ReferenceState, op: OpOf<"unary">): void {
  for (let row = 0; row < rowsOf(state.step, op.output); row++) {
    const y = rowOf(state, op.output, row);
    y.set(y.map((value) => unaryOf(op.function, value, op.parameter)));
  }
}

export function add(state: ReferenceState, op: OpOf<"add">): void {
  for (let row = 0; row < rowsOf(state.step, op.output); row++) {
    const x = rowOf(state, op.input, row);
    const y = rowOf(state, op.output, row);
    y.set(y.map((value, i) => value + op.scale * x[i]!));
  }
}

export function glu(state: ReferenceState, op: OpOf<"glu">): void {
  const step = op.gate.width === 1 ? 0 : 1;
  for (let row = 0; row < rowsOf(state.step, op.output); row++) {
    const gate = rowOf(state, op.gate, row);
    const up = rowOf(state, op.up, row);
    rowOf(state, op.output, row).set(up.map((u, i) => gated(op.activation, gate[i * step]!, u)));
  }
}

export function positionScale(state: ReferenceState, op: OpOf<"positionScale">): void {
  for (let t = 0; t < state.step.numTokens; t++) {
    const interval = Math.floor((state.step.positions[t]! + op.offset) / op.interval);
    const scale = 1 + op.factor * Math.log(1 + interval);
    const row = rowOf(state, op.output, t);
    row.set(row.map((value) => value * scale));
  }
}

export function copyColumns(state: ReferenceState, op: OpOf<"copyColumns">): void {
  for (let row = 0; row < rowsOf(state.step, op.input); row++) {
    const x = rowOf(state, op.input, row);
    const y = rowOf(state, op.output, row);
    for (let i = 0; i < op.count; i++) {
      const from = op.inputStart + i * op.inputStride;
      y.set(x.subarray(from, from + op.width), op.outputStart + i * op.outputStride);
    }
  }
}
