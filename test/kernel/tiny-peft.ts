// The matrices of a tiny model under the names that PEFT adapters of it have: all whose rows lie in
// folders as in GGUF, so that adapters of them can be merged into either.
import { dequantizeRow } from "../../src/weights/dequantize.ts";
import type { GgufContent, GgufTensorSource } from "../../src/weights/gguf-writer.ts";
import type { Matrix } from "../golden/folder-fixture.ts";
import { type PeftAdapter, peftAdapter } from "../golden/peft-fixture.ts";
import type { Random } from "./random.ts";

const modules: Readonly<Record<string, string>> = {
  ...{ attn_v: "self_attn.v_proj", attn_output: "self_attn.o_proj" },
  ...{ ffn_gate_inp: "block_sparse_moe.gate", ffn_gate_exps: "block_sparse_moe.experts.#.w1" },
  ffn_up_exps: "block_sparse_moe.experts.#.w3",
  ffn_down_exps: "block_sparse_moe.experts.#.w2",
};

/** The tensor's matrices in f32; none where it is not adapted. */
export function folderMatrices(tensor: GgufTensorSource): [string, Matrix][] {
  const { name, type, shape, content } = tensor;
  const [, layer, part] = /^blk\.(\d+)\.(\w+)\.weight$/.exec(name) ?? [];
  const to = name === "token_embd.weight" ? "model.embed_tokens" : modules[part ?? ""];
  if (to === undefined) return [];
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  dequantizeRow(type, content as Uint8Array, values);
  const matrix = shape.slice(-2);
  const size = matrix[0]! * matrix[1]!;
  return Array.from({ length: values.length / size }, (_, index) => {
    const own = { shape: matrix, values: values.subarray(index * size, (index + 1) * size) };
    const prefix = layer === undefined ? "" : `model.layers.${layer}.`;
    return [`${prefix}${to.replace("#", String(index))}.weight`, own];
  });
}

/** An adapter of all these matrices that sets the lengths of their outputs. */
export function tinyDora(
  model: GgufContent,
  random: Random,
): { tensors: Map<string, Matrix>; adapter: PeftAdapter } {
  const tensors = new Map([...model.tensors].flatMap(folderMatrices));
  // So that the table counts as one of its own.
  tensors.set("lm_head.weight", { shape: [1], values: new Float32Array(1) });
  return { tensors, adapter: peftAdapter(tensors, random, { alpha: 2, useDora: true }) };
}
