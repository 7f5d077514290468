// Moves norms into the products that read them: a norm whose output has one reader, a product,
// becomes that product's `inputNorm`. Model code keeps stating norm and product one by one.
import { type Op, operandsOf, type Tensor } from "./ops.ts";

/** The same program with fewer ops; `results` are tensors that are read after the step. */
export function fuseNorms(ops: readonly Op[], results: readonly Tensor[]): Op[] {
  const users = usersOf(ops);
  const fused: (Op | undefined)[] = [...ops];
  ops.forEach((op, index) => {
    if (op.kind !== "norm" || results.includes(op.output)) return;
    if (op.groupWidth !== op.input.width) return;
    const [writer, reader, ...others] = users.get(op.output)!;
    if (writer !== index || reader === undefined || others.length > 0) return;
    const product = ops[reader]!;
    if (product.kind !== "linear" && product.kind !== "linearGlu") return;
    // The product reads the norm's input later than the norm did, and until its end.
    const later = ops.slice(index + 1, reader + 1);
    if (later.some((other) => operandsOf(other).writes.includes(op.input))) return;
    fused[index] = undefined;
    fused[reader] = { ...product, input: op.input, inputNorm: op.rowNorm };
  });
  return fused.filter((op) => op !== undefined);
}

/** Indices of the ops that write or read each tensor, in order. */
function usersOf(ops: readonly Op[]): Map<Tensor, number[]> {
  const users = new Map<Tensor, number[]>();
  ops.forEach((op, index) => {
    const { reads, writes } = operandsOf(op);
    for (const tensor of new Set([...reads, ...writes])) {
      users.set(tensor, [...(users.get(tensor) ?? []), index]);
    }
  });
  return users;
}
