// Adapters on the reference backend: how much of them a row gets, and rows of the length they want.
import type { OpOf, Tensor } from "../plan/ops.ts";
import { matrixSlots, slotRow } from "./reference-experts.ts";
import { type ReferenceState, rowOf, rowsOf } from "./reference-state.ts";

/** How much of an adapter a row of `tensor` gets. */
function scaleOf({ step }: ReferenceState, tensor: Tensor, adapter: number, row: number): number {
  return step.adapterScale(adapter, tensor.rows === "outputs" ? step.outputRows[row]! : row);
}

export function adapterScale(state: ReferenceState, op: OpOf<"adapterScale">): void {
  for (let row = 0; row < rowsOf(state.step, op.output); row++) {
    const scale = scaleOf(state, op.output, op.adapter, row);
    const values = rowOf(state, op.output, row);
    values.set(values.map((value) => (scale === 0 ? 0 : value * scale * op.gain)));
  }
}

export function magnitude(state: ReferenceState, op: OpOf<"magnitude">): void {
  const { input, output, routing, lengths, bias } = op;
  const width = lengths.cols;
  const count = lengths.rows / 4;
  const shared = count === 1 ? 0 : undefined;
  for (const slot of matrixSlots(state, output, shared === 0 ? undefined : routing, count)) {
    const scale = scaleOf(state, output, op.adapter, slot.token);
    const matrix = shared ?? slot.expert;
    const [wanted, n0, n1, n2] = [0, 1, 2, 3].map((i) => state.weightRow(lengths, 4 * matrix + i));
    const biases = bias && state.weightRow(bias, matrix);
    const base = slotRow(state, input, slot, width);
    const update = slotRow(state, output, slot, width);
    const sigma = scale * op.gain;
    for (let i = 0; i < width; i++) {
      const square = n0![i]! + sigma * (n1![i]! + sigma * n2![i]!);
      const c = square > 0 ? wanted![i]! / Math.sqrt(square) : 0;
      const change = (c - 1) * (base[i]! - (biases?.[i] ?? 0)) + c * update[i]!;
      update[i] = scale === 0 ? 0 : change;
    }
  }
}
