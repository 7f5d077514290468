// Models with random weights that score a document for a query: an encoder with both matrices of
// the head, as bge-reranker has them, and a decoder that answers yes or no, as Qwen3-Reranker does.
import type { GgufValue } from "../src/weights/gguf-types.ts";
import type { GgufContent, GgufTensorSource } from "../src/weights/gguf-writer.ts";
import { tinyModel, tinySize } from "./cli/tiny-model.ts";
import { encoderHiddenSize, tinyEncoder } from "./tiny-encoder.ts";

/** GGUF's number of the pooling. */
const rank = 4;

export function tinyReranker(): GgufContent {
  const { metadata, tensors } = tinyEncoder(rank);
  const width = encoderHiddenSize;
  return {
    metadata: [...metadata, ["tokenizer.ggml.add_eos_token", { type: "bool", value: true }]],
    tensors: [
      ...tensors,
      floats("cls.weight", [width, width], 1, 0.5),
      floats("cls.bias", [width], 2, 1),
      floats("cls.output.weight", [1, width], 3, 2),
      floats("cls.output.bias", [1], 4, 1),
    ],
  };
}

export const rankTemplate = "<s>query: {query} document: {document}</s>";

export function tinyRankingDecoder(): GgufContent {
  const architecture = "qwen3";
  const { metadata, tensors } = tinyModel({ architecture });
  const text = (value: string): GgufValue => ({ type: "string", value });
  const headDim = tinySize.hidden / tinySize.heads;
  const ones = { shape: [headDim], type: "f32" } as const;
  const content = new Uint8Array(new Float32Array(headDim).fill(1).buffer);
  return {
    metadata: [
      ...metadata,
      [`${architecture}.attention.layer_norm_rms_epsilon`, { type: "f32", value: 1e-6 }],
      [`${architecture}.pooling_type`, { type: "u32", value: rank }],
      [
        `${architecture}.classifier.output_labels`,
        { type: "array", of: "string", value: ["yes", "no"] },
      ],
      ["tokenizer.chat_template.rerank", text(rankTemplate)],
    ],
    tensors: [
      ...tensors,
      { name: "blk.0.attn_q_norm.weight", ...ones, content },
      { name: "blk.0.attn_k_norm.weight", ...ones, content },
      floats("cls.output.weight", [2, tinySize.hidden], 5, 1),
    ],
  };
}

/** Within ± `size` / 2. */
function floats(name: string, shape: number[], seed: number, size: number): GgufTensorSource {
  const values = new Float32Array(shape.reduce((product, count) => product * count, 1));
  let state = seed;
  for (let i = 0; i < values.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state / 2 ** 32 - 0.5) * size;
  }
  return { name, type: "f32", shape, content: new Uint8Array(values.buffer) };
}
