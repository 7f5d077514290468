// Makes the inputs of all products readable after a step, for who measures what weights are
// multiplied with. A tensor that is changed in place later is copied where the product reads it.
import {
  copyRows,
  type ExpertWeights,
  type Op,
  operandsOf,
  type Tensor,
  type Weight,
} from "./ops.ts";

/** What a group of matrices was multiplied with in the last step. */
export type Product =
  | { readonly kind: "rows"; readonly input: Tensor; readonly weights: readonly Weight[] }
  /** The input has a part for each matrix. */
  | { readonly kind: "heads"; readonly input: Tensor; readonly weights: ExpertWeights }
  /** The input has a row per token, or per token and slot; `route` chose the slots' experts. */
  | {
      readonly kind: "experts";
      readonly input: Tensor;
      readonly routing: Tensor;
      readonly stacks: readonly ExpertWeights[];
    };

/** The tensors that stay as they are until the step's end. */
export function keptTensors(product: Product): readonly Tensor[] {
  return product.kind === "experts" ? [product.input, product.routing] : [product.input];
}

/** The ops with copies in between, and their products; `copyOf` makes a tensor of the same size. */
export function keepInputs(
  ops: readonly Op[],
  copyOf: (tensor: Tensor) => Tensor,
): { ops: Op[]; products: Product[] } {
  const kept: Op[] = [];
  const products: Product[] = [];
  ops.forEach((op, index) => {
    const product = productOf(op);
    if (product !== undefined) {
      const { input } = product;
      // The op itself may write what it reads.
      const isChanged = ops.slice(index).some((later) => operandsOf(later).writes.includes(input));
      const safe = isChanged ? copyOf(input) : input;
      if (isChanged) kept.push(copyRows(input, safe));
      products.push({ ...product, input: safe });
    }
    kept.push(op);
  });
  return { ops: kept, products };
}

function productOf(op: Op): Product | undefined {
  switch (op.kind) {
    case "linear":
      return { kind: "rows", input: op.input, weights: op.outputs.map(({ weight }) => weight) };
    case "linearGlu":
      return { kind: "rows", input: op.input, weights: [op.gate, op.up] };
    case "slotLinear": {
      const { input, routing, weights } = op;
      if (routing === undefined) return { kind: "heads", input, weights };
      return { kind: "experts", input, routing, stacks: [weights] };
    }
    case "expertGlu":
      return { kind: "experts", ...expertInputs(op), stacks: [op.gate, op.up] };
    case "expertLinear":
      return { kind: "experts", ...expertInputs(op), stacks: [op.weights] };
    default:
      return undefined;
  }
}

function expertInputs({ input, routing }: { input: Tensor; routing: Tensor }) {
  return { input, routing };
}
