// Which of a plan's tensors are left once its ops are fused, and their numbers.
import { type Op, operandsOf, type Tensor } from "./ops.ts";

/** A tensor whose number is not final yet. */
export type NumberedTensor = { -readonly [K in keyof Tensor]: Tensor[K] };

/** The tensors that `ops` still use or that are `results`, with ids in that order. */
export function numberTensors(
  tensors: readonly NumberedTensor[],
  ops: readonly Op[],
  results: readonly Tensor[],
): Tensor[] {
  const used = new Set<Tensor>(results);
  for (const op of ops) {
    const { reads, writes } = operandsOf(op);
    for (const tensor of [...reads, ...writes]) used.add(tensor);
  }
  const kept = tensors.filter((tensor) => used.has(tensor));
  for (const tensor of tensors) tensor.id = kept.indexOf(tensor);
  return kept;
}
