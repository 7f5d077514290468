// Makes a Hugging Face folder of a golden GGUF file: the way back from GGUF's form, written apart
// from the product's conversions, so that both must be right for the logits to come out.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { commonNames } from "../../src/hugging-face/common.ts";
import { folderFamilyOf } from "../../src/hugging-face/families/registry.ts";
import { JsonObject } from "../../src/hugging-face/json-file.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { readTensorFloats } from "../../src/weights/tensor-content.ts";

type Config = Record<string, unknown> & { model_type: string };
export interface Matrix {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** Hyperparameters as config.json has them, with what is the family's own over them. */
function configOf(path: string, own: Config): Config {
  const { metadata } = readGguf(path);
  const architecture = metadata.get("general.architecture");
  const key = (name: string) => metadata.get(`${architecture}.${name}`);
  const usual = {
    hidden_size: key("embedding_length"),
    num_hidden_layers: key("block_count"),
    intermediate_size: key("feed_forward_length"),
    num_attention_heads: key("attention.head_count"),
    num_key_value_heads: key("attention.head_count_kv"),
    max_position_embeddings: key("context_length"),
    rms_norm_eps: key("attention.layer_norm_rms_epsilon"),
    layer_norm_eps: key("attention.layer_norm_epsilon"),
    rope_theta: key("rope.freq_base"),
    head_dim: key("attention.key_length"),
    num_experts: key("expert_count"),
    num_experts_per_tok: key("expert_used_count"),
    moe_intermediate_size: key("expert_feed_forward_length"),
    sliding_window: key("attention.sliding_window"),
    vocab_size: 512,
  };
  return { ...JSON.parse(JSON.stringify(usual)), ...own };
}

/** GGUF name of a part → Hugging Face's, from the same table that the product reads. */
function namesOf(config: Config): Map<string, string> {
  const family = folderFamilyOf(new JsonObject("config.json", config as never));
  const names = new Map<string, string>();
  for (const [from, targets] of Object.entries({ ...commonNames, ...family.names })) {
    if (targets === null) continue;
    const list = typeof targets === "string" ? [{ to: targets }] : [targets].flat();
    // The family's own names come last and win, except over those that only few files have.
    for (const { to } of list) if (!names.has(to) || family.names?.[from]) names.set(to, from);
  }
  return names;
}

const interleaved =
  /^(llama|mistral|mixtral|granite|granitemoe|granitemoeshared|smollm3|ministral3|deepseek)$/;

/** Pairs side by side → half a head apart. */
function apart({ shape, values }: Matrix, heads: number): Matrix {
  const rows = shape[0]!;
  const cols = values.length / rows;
  const dim = rows / heads;
  const output = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const head = Math.floor(row / dim);
    const place = row % dim;
    const target = head * dim + (place % 2 === 0 ? place / 2 : dim / 2 + (place - 1) / 2);
    output.set(values.subarray(row * cols, (row + 1) * cols), target * cols);
  }
  return { shape, values: output };
}

function turned({ shape, values }: Matrix): Matrix {
  const [rows, cols] = shape as [number, number];
  const output = Float32Array.from(
    values,
    (_, i) => values[(i % rows) * cols + Math.floor(i / rows)]!,
  );
  return { shape: [cols, rows], values: output };
}

function undo(part: string, matrix: Matrix, config: Config): Matrix {
  const { model_type: type } = config;
  const heads = config["num_attention_heads"] as number;
  const kvHeads = (config["num_key_value_heads"] as number | undefined) ?? heads;
  if (interleaved.test(type) && part === "attn_q") return apart(matrix, heads);
  if (interleaved.test(type) && part === "attn_k") return apart(matrix, kvHeads);
  if (type.startsWith("gemma") && part.endsWith("_norm")) {
    return { ...matrix, values: matrix.values.map((value) => value - 1) };
  }
  const turns = type === "gpt2" && /^(attn_qkv|attn_output|ffn_up|ffn_down)$/.test(part);
  return turns && matrix.shape.length === 2 ? turned(matrix) : matrix;
}

const cut = (values: Float32Array, size: number) =>
  Array.from({ length: values.length / size }, (_, i) => values.subarray(i * size, (i + 1) * size));

/** Two stacks as one: of each matrix first the rows of `a`, then those of `b`. */
function joined(a: Matrix, b: Matrix): Matrix {
  const height = (m: Matrix) => m.shape.at(-2)!;
  const cols = a.shape.at(-1)!;
  const parts = cut(a.values, height(a) * cols).flatMap((own, i) => {
    return [...own, ...cut(b.values, height(b) * cols)[i]!];
  });
  return {
    shape: [...a.shape.slice(0, -2), height(a) + height(b), cols],
    values: Float32Array.from(parts),
  };
}

/** Language models within others, whose names and configuration lie one level deeper. */
const multimodal = /^(llama4_text|mistral4)$/;

/** All matrices transposed. */
function allTurned({ shape, values }: Matrix): Matrix {
  const [count, rows, cols] = shape as [number, number, number];
  const parts = cut(values, rows * cols).flatMap((part) => {
    return [...turned({ shape: [rows, cols], values: part }).values];
  });
  return { shape: [count, cols, rows], values: Float32Array.from(parts) };
}

/** Rows of `a` and `b` in turn, of every matrix; or elements of vectors. */
function alternated(a: Matrix, b: Matrix): Matrix {
  const isVector = a.shape.length === 2;
  const cols = isVector ? 1 : a.shape.at(-1)!;
  const others = cut(b.values, cols);
  const values = cut(a.values, cols).flatMap((row, i) => [...row, ...others[i]!]);
  const [count, height] = a.shape as [number, number];
  const shape = isVector ? [count, 2 * height] : [count, 2 * height, cols];
  return { shape, values: Float32Array.from(values) };
}

/** gpt-oss without quantisation: with inputs as rows, gates and ups in turn. */
function gptOssParameter(part: string, ending: string, read: (part: string) => Matrix) {
  if (!part.endsWith("_exps")) return undefined;
  const isGate = part === "ffn_gate_exps";
  const matrix = isGate ? alternated(read(part), read("ffn_up_exps")) : read(part);
  const name = `mlp.experts.${isGate ? "gate_up_proj" : "down_proj"}`;
  if (ending === ".bias") return { name: `${name}_bias`, matrix };
  return { name, matrix: allTurned(matrix) };
}

/** Experts as one parameter: Llama 4 with inputs as rows, Mistral 4 as GGUF has them. */
function expertParameter(type: string, part: string, read: (part: string) => Matrix) {
  if (type === "mistral4" && /^ffn_(gate_up|down)_exps$/.test(part)) return read(part);
  if (type !== "llama4_text") return undefined;
  if (part === "ffn_gate_exps") return allTurned(joined(read(part), read("ffn_up_exps")));
  return part === "ffn_down_exps" ? allTurned(read(part)) : undefined;
}

/** `change` sees the tensors before they are written. */
export function makeFolder(
  path: string,
  folder: string,
  own: Config,
  change: (tensors: Map<string, Matrix>) => void = () => {},
): void {
  const config = configOf(path, own);
  const names = namesOf(config);
  const header = readGguf(path);
  const output = new Map<string, Matrix>();
  const read = (name: string): Matrix => {
    const { shape } = header.tensors.get(name)!;
    return { shape, values: readTensorFloats(header, header.tensors.get(name)!) };
  };
  const isGraniteMoe = own.model_type.startsWith("granitemoe");
  const upsGoWithGates = /^(llama4_text|gpt_oss)$/.test(own.model_type);
  const tower = multimodal.test(own.model_type) ? "language_model." : "";
  for (const { name } of header.tensors.values()) {
    if (/^rope_f/.test(name) || name.includes("attn_v_b")) continue;
    // It goes with the gate.
    if (isGraniteMoe && /ffn_up_(exps|shexp)/.test(name)) continue;
    if (upsGoWithGates && name.includes("ffn_up_exps")) continue;
    const [, layer, part, ending] = /^(?:blk\.(\d+)\.)?(\w+)(\.\w+)$/.exec(name)!;
    const prefix = layer === undefined ? "" : `layers.${layer}.`;
    const put = (to: string, matrix: Matrix, suffix = ending!) => {
      const root = to === "lm_head" ? "" : "model.";
      output.set(`${tower}${root}${prefix}${to}${suffix}`, matrix);
    };
    const from = names.get(part!);
    const single = names.get(part!.replace("_exps", ".#"));
    const sibling = (other: string) => read(`blk.${layer}.${other}${ending}`);
    const parameter = expertParameter(own.model_type, part!, sibling);
    const isGptOss = own.model_type === "gpt_oss";
    const named = isGptOss ? gptOssParameter(part!, ending!, sibling) : undefined;
    if (named !== undefined) {
      put(named.name, named.matrix, "");
    } else if (parameter !== undefined) {
      put(from!, parameter, "");
    } else if (part === "attn_k_b") {
      const keys = read(name);
      const [heads, latent, dim] = keys.shape as [number, number, number];
      const back = cut(keys.values, latent * dim).flatMap((values) => {
        return [...turned({ shape: [latent, dim], values }).values];
      });
      const kv = joined(
        { shape: [heads, dim, latent], values: Float32Array.from(back) },
        sibling("attn_v_b"),
      );
      put(from!, { shape: [kv.shape[0]! * kv.shape[1]!, latent], values: kv.values });
    } else if (part === "exp_probs_b" || part === "attn_sinks") {
      put(from!, read(name), "");
    } else if (isGraniteMoe && /^ffn_gate_(exps|shexp)$/.test(part!)) {
      put(from!, joined(read(name), sibling(part!.replace("gate", "up"))));
    } else if (from === "mlp.shared_expert_gate") {
      put(from, { ...read(name), shape: [1, read(name).values.length] });
    } else if (part!.endsWith("_exps") && single !== undefined) {
      const { shape, values } = read(name);
      cut(values, shape[1]! * shape[2]!).forEach((expert, index) => {
        put(single.replace("#", String(index)), { shape: shape.slice(1), values: expert });
      });
    } else if (from !== undefined) {
      put(from, undo(part!, read(name), config));
    } else {
      throw new Error(`${name} has no name`);
    }
  }
  mkdirSync(folder, { recursive: true });
  const whole = tower === "" ? config : { model_type: "whole", text_config: config };
  if (tower !== "") {
    const other = { shape: [2], values: new Float32Array(2) };
    output.set("vision_model.layernorm_pre.weight", other);
    output.set("multi_modal_projector.linear_1.weight", other);
  }
  change(output);
  writeFileSync(join(folder, "config.json"), JSON.stringify(whole));
  writeSafetensors(join(folder, "model.safetensors"), output);
}

export function writeSafetensors(path: string, tensors: ReadonlyMap<string, Matrix>): void {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, { shape, values }] of tensors) {
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const data = [...tensors.values()].map(({ values }) => Buffer.from(values.slice().buffer));
  writeFileSync(path, Buffer.concat([length, text, ...data]));
}
