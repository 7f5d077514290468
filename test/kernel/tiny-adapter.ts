// LoRA adapters with random factors for the tiny models, and the model that one makes when it is
// merged into F32 weights.
import { dequantizeRow } from "../../src/weights/dequantize.ts";
import type { GgufValue } from "../../src/weights/gguf-types.ts";
import type { GgufContent, GgufTensorSource } from "../../src/weights/gguf-writer.ts";
import { type QuantType, rowBytes } from "../../src/weights/quant-types.ts";
import type { Random } from "./random.ts";

/**
 * Factors of one update, `a` `[rank, cols]` and `b` `[rows, rank]`, of a stack `count` of them; of a
 * table see `isTable`.
 */
interface Update {
  readonly target: string;
  readonly count: number;
  readonly rank: number;
  readonly rows: number;
  readonly cols: number;
  /** `a` is `[rows, rank]`, `b` `[cols, rank]`. */
  readonly isTable: boolean;
  readonly a: GgufTensorSource;
  readonly b: GgufTensorSource;
}

export interface TinyAdapter {
  readonly content: GgufContent;
  readonly updates: readonly Update[];
  readonly alpha: number;
}

/** Random updates of all of the model's matrices that `wants` names. */
export function tinyAdapter(
  model: GgufContent,
  random: Random,
  {
    alpha = 4,
    ranks = [1, 3, 8, 16, 40],
    typeA = "f32",
    typeB = "f32",
    wants = () => true,
    architecture = "llama",
  }: {
    alpha?: number;
    ranks?: readonly number[];
    typeA?: QuantType;
    typeB?: QuantType;
    wants?: (name: string) => boolean;
    architecture?: string;
  } = {},
): TinyAdapter {
  const matrices = [...model.tensors].filter(({ name, shape }) => {
    return shape.length >= 2 && shape[0]! > 1 && wants(name);
  });
  const updates = matrices.map(({ name, shape }, index): Update => {
    const [rows, cols] = shape.slice(-2) as [number, number];
    const stack = shape.slice(0, -2);
    const count = stack[0] ?? 1;
    const rank = ranks[index % ranks.length]!;
    const isTable = name === "token_embd.weight";
    const factor = (part: string, type: QuantType, height: number, width: number) => {
      const content = random.weights(type, count * height, width);
      return { name: `${name}.${part}`, type, shape: [...stack, height, width], content };
    };
    const a = isTable ? factor("lora_a", typeB, rows, rank) : factor("lora_a", typeA, rank, cols);
    const b = factor("lora_b", typeB, isTable ? cols : rows, rank);
    return { target: name, count, rank, rows, cols, isTable, a, b };
  });
  const tensors = updates.flatMap(({ a, b }) => [a, b]);
  return { content: { metadata: adapterMetadata(alpha, architecture), tensors }, updates, alpha };
}

export function adapterMetadata(alpha: number, architecture = "llama"): [string, GgufValue][] {
  const text = (value: string): GgufValue => ({ type: "string", value });
  return [
    ["general.type", text("adapter")],
    ["general.architecture", text(architecture)],
    ["adapter.type", text("lora")],
    ["adapter.lora.alpha", { type: "f32", value: alpha }],
  ];
}

function floatsOf({ type, shape, content }: GgufTensorSource): Float32Array[] {
  const cols = shape.at(-1)!;
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const bytes = rowBytes(type, cols);
  return Array.from({ length: rows }, (_, row) => {
    const values = new Float32Array(cols);
    dequantizeRow(type, (content as Uint8Array).subarray(row * bytes, (row + 1) * bytes), values);
    return values;
  });
}

/** The model with F32 weights that include the adapters, each by its scale. */
export function merged(
  model: GgufContent,
  adapters: readonly { adapter: TinyAdapter; scale: number }[],
): GgufContent {
  const tensors = [...model.tensors].map((tensor) => {
    if (tensor.shape.length < 2) return tensor;
    const values = floatsOf(tensor);
    for (const { adapter, scale } of adapters) {
      for (const update of adapter.updates) {
        if (update.target === tensor.name) addUpdate(values, update, scale * adapter.alpha);
      }
    }
    const content = new Uint8Array(Buffer.concat(values.map((row) => new Uint8Array(row.buffer))));
    return { ...tensor, type: "f32" as const, content };
  });
  return { metadata: model.metadata, tensors };
}

function addUpdate(values: readonly Float32Array[], update: Update, weight: number): void {
  const { count, rank, rows, cols, isTable } = update;
  const [a, b] = [floatsOf(update.a), floatsOf(update.b)];
  for (let row = 0; row < count * rows; row++) {
    const first = Math.floor(row / rows) * rank;
    for (let col = 0; col < cols; col++) {
      let sum = 0;
      for (let r = 0; r < rank; r++) {
        sum += isTable ? a[row]![r]! * b[col]![r]! : b[row]![r]! * a[first + r]![col]!;
      }
      values[row]![col]! += (weight / rank) * sum;
    }
  }
}
