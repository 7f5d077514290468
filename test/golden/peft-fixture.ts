// PEFT adapters with random factors for the tensors of a Hugging Face folder, and the tensors that
// PEFT's definitions make of both: in its own layouts, in float64, apart from all of tinfer's
// conversions.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Random } from "../kernel/random.ts";
import { type Matrix, writeSafetensors } from "./folder-fixture.ts";

export interface PeftOptions {
  readonly alpha: number;
  readonly useDora?: boolean;
  readonly useRslora?: boolean;
  /** Matrices are stored with inputs as rows (Conv1D). */
  readonly fanInFanOut?: boolean;
  readonly wants?: (tensor: string) => boolean;
  /** Of `alpha_pattern`: regular expressions of modules and their alphas. */
  readonly alphas?: Readonly<Record<string, number>>;
}

/** One module's factors in float64, as PEFT multiplies them. */
interface Update {
  readonly tensor: string;
  readonly scaling: number;
  /** What is added to the tensor at a scaling of 1, in its layout. */
  readonly delta: Float64Array;
  /** DoRA, one per output. */
  readonly magnitudes: Float32Array | undefined;
  readonly outputsAre: "rows" | "columns";
}

export interface PeftAdapter {
  /** Writes the folder. */
  readonly tensors: ReadonlyMap<string, Matrix>;
  readonly config: Record<string, unknown>;
  readonly updates: readonly Update[];
}

const tables = /\b(embed_tokens|wte)\.weight$/;
const noModules = /(norm|ln_f|ln_1|ln_2|layernorm|wpe|rotary|vision_model|projector)/i;

export function peftAdapter(
  model: ReadonlyMap<string, Matrix>,
  random: Random,
  options: PeftOptions,
): PeftAdapter {
  const { alpha, useDora = false, useRslora = false, fanInFanOut = false, alphas = {} } = options;
  const tensors = new Map<string, Matrix>();
  const updates: Update[] = [];
  // A change of a table that is the output matrix too is no change of one tensor.
  const isTied = ![...model.keys()].some((name) => name.endsWith("lm_head.weight"));
  let index = 0;
  for (const [name, { shape, values }] of model) {
    const module = name.replace(/\.weight$/, "");
    const isMatrix = shape.length === 2 && name.endsWith(".weight");
    const isStack = shape.length === 3;
    if (noModules.test(name) || !(isMatrix || isStack)) continue;
    if (isTied && tables.test(name)) continue;
    if (options.wants !== undefined && !options.wants(name)) continue;
    const rank = 2 + (index++ % 3);
    const key = Object.keys(alphas).find((pattern) =>
      new RegExp(`(^|\\.)(${pattern})$`).test(module),
    );
    const own = key === undefined ? alpha : alphas[key]!;
    const scaling = own / (useRslora ? Math.sqrt(rank) : rank);
    const put = (part: string, partShape: number[], partValues: Float32Array) =>
      tensors.set(`base_model.model.${part}`, { shape: partShape, values: partValues });
    if (isStack) {
      const [experts, d1, d2] = shape as [number, number, number];
      const a = random.normals(experts * rank * d1, 0.3);
      const b = random.normals(d2 * rank * experts, 0.3);
      // PEFT wraps a module once per parameter; the first lies inside.
      const owner = module.replace(/\.(gate_up_proj|down_proj)$/, "");
      const nested = owner !== module && module.endsWith("gate_up_proj") ? ".base_layer" : "";
      put(`${owner}${nested}.lora_A.weight`, [experts * rank, d1], a);
      put(`${owner}${nested}.lora_B.weight`, [d2, rank * experts], b);
      const delta = new Float64Array(values.length);
      for (let e = 0; e < experts; e++)
        for (let i = 0; i < d1; i++)
          for (let o = 0; o < d2; o++)
            for (let r = 0; r < rank; r++)
              delta[(e * d1 + i) * d2 + o]! +=
                a[(e * rank + r) * d1 + i]! * b[o * rank * experts + r * experts + e]!;
      updates.push({ tensor: name, scaling, delta, magnitudes: undefined, outputsAre: "rows" });
      continue;
    }
    const isTable = tables.test(name);
    const isTurned = isTable || fanInFanOut;
    const [rows, cols] = shape as [number, number];
    const [outputs, inputs] = isTurned ? [cols, rows] : [rows, cols];
    const a = random.normals(rank * inputs, 0.3);
    const b = random.normals(outputs * rank, 0.3);
    put(isTable ? `${module}.lora_embedding_A` : `${module}.lora_A.weight`, [rank, inputs], a);
    put(isTable ? `${module}.lora_embedding_B` : `${module}.lora_B.weight`, [outputs, rank], b);
    const delta = new Float64Array(values.length);
    for (let o = 0; o < outputs; o++)
      for (let i = 0; i < inputs; i++)
        for (let r = 0; r < rank; r++)
          delta[isTurned ? i * cols + o : o * cols + i]! += b[o * rank + r]! * a[r * inputs + i]!;
    const magnitudes = useDora ? random.normals(outputs, 0.3).map((m) => 1.5 + m) : undefined;
    if (magnitudes !== undefined) {
      put(`${module}.lora_magnitude_vector`, [outputs], magnitudes);
    }
    const outputsAre = isTurned ? "columns" : "rows";
    updates.push({ tensor: name, scaling, delta, magnitudes, outputsAre });
  }
  const config = {
    ...{ peft_type: "LORA", r: 2, lora_alpha: alpha, use_dora: useDora, use_rslora: useRslora },
    ...{ fan_in_fan_out: fanInFanOut, alpha_pattern: alphas, bias: "none", modules_to_save: null },
  };
  return { tensors, config, updates };
}

export function saveAdapter(folder: string, { tensors, config }: PeftAdapter): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(config));
  writeSafetensors(join(folder, "adapter_model.safetensors"), tensors);
  return folder;
}

/** The model's tensors with the adapter at this scale merged into them. */
export function mergePeft(model: Map<string, Matrix>, adapter: PeftAdapter, scale: number): void {
  for (const { tensor, scaling, delta, magnitudes, outputsAre } of adapter.updates) {
    const { shape, values } = model.get(tensor)!;
    const merged = Float64Array.from(values, (w, i) => w + scale * scaling * delta[i]!);
    if (magnitudes !== undefined) {
      const cols = shape.at(-1)!;
      const outputOf = (i: number) => (outputsAre === "rows" ? Math.floor(i / cols) : i % cols);
      const squares = new Float64Array(magnitudes.length);
      merged.forEach((w, i) => {
        squares[outputOf(i)]! += w * w;
      });
      merged.forEach((w, i) => {
        merged[i] = (w * magnitudes[outputOf(i)]!) / Math.sqrt(squares[outputOf(i)]!);
      });
    }
    model.set(tensor, { shape, values: Float32Array.from(merged) });
  }
}
