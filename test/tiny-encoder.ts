// A BERT of two layers with deterministic weights and a vocabulary of letters, whose table of
// positions is no multiple of a KV block: for commands and servers that meet an encoder.
import type { GgufValue } from "../src/weights/gguf-types.ts";
import type { GgufContent, GgufTensorSource } from "../src/weights/gguf-writer.ts";

/** `[CLS]`, `[SEP]` and 38 letters fill it. */
export const encoderContextLen = 40;
export const encoderHiddenSize = 64;
const ffn = 96;
const tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ..."abcdefghijklmnopqrstuvwxyz"].flatMap(
  (token) => (token.length > 1 ? [token] : [`▁${token}`, token]),
);

export type EncoderArchitecture = "bert" | "nomic-bert";

/** `poolingType`: 0 none, 1 mean, 2 cls, 3 last, 4 rank; left out where undefined. */
export function tinyEncoder(
  poolingType?: number,
  architecture: EncoderArchitecture = "bert",
): GgufContent {
  const shapes = architecture === "bert" ? bertShapes() : nomicShapes();
  const tensors = shapes.map(([name, shape], index) => makeTensor(name, shape, index));
  return { metadata: makeMetadata(architecture, poolingType), tensors };
}

/** Fused queries, keys and values, a gated MLP, no biases and no table of positions. */
function nomicShapes(): [string, number[]][] {
  const hidden = encoderHiddenSize;
  const shapes: [string, number[]][] = [
    ["token_embd.weight", [tokens.length, hidden]],
    ["token_types.weight", [2, hidden]],
    ["token_embd_norm.weight", [hidden]],
    ["token_embd_norm.bias", [hidden]],
  ];
  for (const layer of [0, 1]) {
    const name = (part: string) => `blk.${layer}.${part}`;
    shapes.push([name("attn_qkv.weight"), [3 * hidden, hidden]]);
    shapes.push([name("attn_output.weight"), [hidden, hidden]]);
    shapes.push([name("ffn_gate.weight"), [ffn, hidden]], [name("ffn_up.weight"), [ffn, hidden]]);
    shapes.push([name("ffn_down.weight"), [hidden, ffn]]);
    for (const norm of ["attn_output_norm", "layer_output_norm"]) {
      shapes.push([name(`${norm}.weight`), [hidden]], [name(`${norm}.bias`), [hidden]]);
    }
  }
  return shapes;
}

function bertShapes(): [string, number[]][] {
  const hidden = encoderHiddenSize;
  const shapes: [string, number[]][] = [
    ["token_embd.weight", [tokens.length, hidden]],
    ["token_types.weight", [2, hidden]],
    ["position_embd.weight", [encoderContextLen, hidden]],
    ["token_embd_norm.weight", [hidden]],
    ["token_embd_norm.bias", [hidden]],
  ];
  const matrices = [
    ...(["attn_q", "attn_k", "attn_v", "attn_output"] as const).map((part) => {
      return [part, hidden, hidden] as const;
    }),
    ["ffn_up", ffn, hidden] as const,
    ["ffn_down", hidden, ffn] as const,
  ];
  for (const layer of [0, 1]) {
    for (const [part, rows, cols] of matrices) {
      shapes.push([`blk.${layer}.${part}.weight`, [rows, cols]]);
      shapes.push([`blk.${layer}.${part}.bias`, [rows]]);
    }
    for (const norm of ["attn_output_norm", "layer_output_norm"]) {
      shapes.push([`blk.${layer}.${norm}.weight`, [hidden]]);
      shapes.push([`blk.${layer}.${norm}.bias`, [hidden]]);
    }
  }
  return shapes;
}

function makeTensor(name: string, shape: number[], index: number): GgufTensorSource {
  const floats = new Float32Array(shape.reduce((product, size) => product * size, 1));
  const isNormWeight = name.endsWith("norm.weight");
  let state = index + 1;
  for (let i = 0; i < floats.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    floats[i] = (isNormWeight ? 1 : 0) + (state / 2 ** 32 - 0.5) / 4;
  }
  return { name, type: "f32", shape, content: new Uint8Array(floats.buffer) };
}

function makeMetadata(
  architecture: EncoderArchitecture,
  poolingType: number | undefined,
): [string, GgufValue][] {
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const text = (value: string): GgufValue => ({ type: "string", value });
  const metadata: [string, GgufValue][] = [
    ["general.architecture", text(architecture)],
    [`${architecture}.block_count`, u32(2)],
    [`${architecture}.context_length`, u32(encoderContextLen)],
    [`${architecture}.embedding_length`, u32(encoderHiddenSize)],
    [`${architecture}.feed_forward_length`, u32(ffn)],
    [`${architecture}.attention.head_count`, u32(4)],
    [`${architecture}.attention.layer_norm_epsilon`, { type: "f32", value: 1e-12 }],
    [`${architecture}.rope.freq_base`, { type: "f32", value: 1000 }],
    ["tokenizer.ggml.model", text("bert")],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", value: tokens }],
    ["tokenizer.ggml.token_type_count", u32(2)],
    ["tokenizer.ggml.unknown_token_id", u32(1)],
    ["tokenizer.ggml.bos_token_id", u32(2)],
    ["tokenizer.ggml.seperator_token_id", u32(3)],
    ["tokenizer.ggml.eos_token_id", u32(3)],
    ["tokenizer.ggml.padding_token_id", u32(0)],
  ];
  if (poolingType !== undefined) metadata.push([`${architecture}.pooling_type`, u32(poolingType)]);
  return metadata;
}
