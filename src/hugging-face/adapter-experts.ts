// Adapters of experts that are one parameter `[experts, ·, ·]` (PEFT's target_parameters): the
// factors of all experts lie in two matrices, A `[experts * rank, ·]` expert by expert and B
// `[·, rank * experts]` with the experts next to each other. PEFT saves no name of the parameter.
import { pickedRows, transposedMatrices } from "../weights/rows.ts";
import type { SourceTensor } from "./family.ts";

export interface ParameterSizes {
  readonly hiddenSize: number;
  readonly numExperts: number;
  /** MLP width of one expert. */
  readonly expertSize: number;
}

type Factor = Pick<SourceTensor, "shape" | "rows">;

/** Gates read, and downs write, hidden states: the other side tells which of them this is. */
export function expertParameters(
  a: readonly number[],
  b: readonly number[],
  { hiddenSize, expertSize }: ParameterSizes,
): string | undefined {
  const sides = [a[1]!, b[0]!];
  if (!sides.includes(hiddenSize)) return undefined;
  const other = sides[0] === hiddenSize ? sides[1]! : sides[0]!;
  if (other === 2 * expertSize) return "gate_up_proj";
  return other === expertSize ? "down_proj" : undefined;
}

/**
 * Per expert `a` `[experts, rank, inputs]` and `b` `[experts, outputs, rank]`, or why not. Where the
 * parameter has outputs as rows, PEFT before 0.19 takes them for inputs: A and B change sides.
 * `isTurned`: it has inputs as rows.
 */
export function expertFactors(
  a: Factor,
  b: Factor,
  sizes: ParameterSizes & { readonly isTurned: boolean },
): { a: Factor; b: Factor } | string {
  const { numExperts, hiddenSize, expertSize, isTurned } = sizes;
  const [height, widthA] = [a.shape[0]!, a.shape[1]!];
  const widthB = b.shape[0]!;
  const rank = height / numExperts;
  if (!Number.isInteger(rank) || b.shape[1] !== height) {
    return `[${a.shape.join(", ")}] and [${b.shape.join(", ")}] are no factors of ${numExperts} experts`;
  }
  const parts = { rank, numExperts };
  if (isTurned) return straight(a, b, parts);
  if (widthA === widthB) {
    return `a square matrix [${widthA}, ${widthB}] does not tell which of its factors reads inputs`;
  }
  const parameter = expertParameters(a.shape, b.shape, sizes);
  if (parameter === undefined) return `factors of ${widthA} and ${widthB} values are no expert's`;
  const inputs = parameter === "gate_up_proj" ? hiddenSize : expertSize;
  return widthA === inputs ? straight(a, b, parts) : crossed(a, b, parts);
}

interface PartSizes {
  readonly rank: number;
  readonly numExperts: number;
}

function straight(a: Factor, b: Factor, { rank, numExperts }: PartSizes) {
  const { rows } = a;
  return {
    a: { shape: [numExperts, rank, rows.cols], rows },
    b: turned(byExpert(b, { rank, numExperts })),
  };
}

function crossed(a: Factor, b: Factor, sizes: PartSizes) {
  const own = { shape: [sizes.numExperts, sizes.rank, a.rows.cols], rows: a.rows };
  return { a: byExpert(b, sizes), b: turned(own) };
}

/** `[·, rank * experts]` as `[experts, rank, ·]`. */
function byExpert({ rows }: Factor, { rank, numExperts }: PartSizes): Factor {
  const columns = transposedMatrices(rows, {
    start: 0,
    stride: rows.numRows,
    numRows: rows.numRows,
  });
  const order = (row: number) => (row % rank) * numExperts + Math.floor(row / rank);
  const shape = [numExperts, rank, rows.numRows];
  return { shape, rows: pickedRows(columns, columns.numRows, order) };
}

function turned({ shape, rows }: Factor): Factor {
  const height = shape.at(-2)!;
  const matrices = { start: 0, stride: height, numRows: height };
  return { shape: [shape[0]!, shape.at(-1)!, height], rows: transposedMatrices(rows, matrices) };
}
