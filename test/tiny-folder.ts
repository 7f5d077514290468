// Hugging Face folders of a llama with made-up weights, of any size: for what loading them takes.
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

export interface FolderSize {
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly ffn: number;
  readonly vocab: number;
  readonly layers: number;
}

type Shapes = [string, number[]][];

/** Hugging Face names and shapes: those that GGUF permutes, and those used as they are. */
export function folderShapes(size: FolderSize): { permuted: Shapes; plain: Shapes } {
  const { hidden, heads, kvHeads, ffn, vocab, layers } = size;
  const kvWidth = (hidden / heads) * kvHeads;
  const permuted: Shapes = [];
  const plain: Shapes = [
    ["model.embed_tokens.weight", [vocab, hidden]],
    ["model.norm.weight", [hidden]],
    ["lm_head.weight", [vocab, hidden]],
  ];
  for (let layer = 0; layer < layers; layer++) {
    const name = (part: string) => `model.layers.${layer}.${part}.weight`;
    permuted.push([name("self_attn.q_proj"), [hidden, hidden]]);
    permuted.push([name("self_attn.k_proj"), [kvWidth, hidden]]);
    plain.push([name("self_attn.v_proj"), [kvWidth, hidden]]);
    plain.push([name("self_attn.o_proj"), [hidden, hidden]]);
    plain.push([name("mlp.gate_proj"), [ffn, hidden]]);
    plain.push([name("mlp.up_proj"), [ffn, hidden]]);
    plain.push([name("mlp.down_proj"), [hidden, ffn]]);
    plain.push([name("input_layernorm"), [hidden]]);
    plain.push([name("post_attention_layernorm"), [hidden]]);
  }
  return { permuted, plain };
}

export const elementsOf = (shapes: readonly [string, readonly number[]][]) =>
  shapes.reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);

const elementBytes = { F32: 4, BF16: 2 } as const;

/** Elements that are made and written at once. */
const pieceLen = 2 ** 20;

export function writeFolder(path: string, size: FolderSize, dtype: keyof typeof elementBytes) {
  const { permuted, plain } = folderShapes(size);
  const bytes = elementBytes[dtype];
  const header: Record<string, object> = {};
  let end = 0;
  for (const [name, shape] of [...permuted, ...plain]) {
    const start = end;
    end += elementsOf([[name, shape]]) * bytes;
    header[name] = { dtype, shape, data_offsets: [start, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  mkdirSync(path);
  const file = openSync(join(path, "model.safetensors"), "w");
  writeSync(file, Buffer.concat([length, text]));
  const piece = madeUp(pieceLen, dtype);
  for (let left = end; left > 0; ) left -= writeSync(file, piece, 0, Math.min(left, piece.length));
  closeSync(file);
  const { hidden, heads, kvHeads, ffn, vocab, layers } = size;
  const config = {
    ...{ model_type: "llama", hidden_size: hidden, num_attention_heads: heads },
    ...{ num_key_value_heads: kvHeads, intermediate_size: ffn, vocab_size: vocab },
    ...{ num_hidden_layers: layers, max_position_embeddings: 512, rms_norm_eps: 1e-5 },
  };
  writeFileSync(join(path, "config.json"), JSON.stringify(config));
}

function madeUp(count: number, dtype: keyof typeof elementBytes): Uint8Array {
  const floats = Float32Array.from({ length: count }, (_, i) => Math.sin(i) / 8);
  if (dtype === "F32") return new Uint8Array(floats.buffer);
  const words = new Uint32Array(floats.buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}
