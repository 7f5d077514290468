// A llama model of one layer with deterministic weights, and ways to spoil it: for commands that
// must say what is wrong with a file.
import type { GgufValue } from "../../src/weights/gguf-types.ts";
import type { GgufContent, GgufTensorSource } from "../../src/weights/gguf-writer.ts";
import { type QuantType, tensorBytes } from "../../src/weights/quant-types.ts";

export interface TinyModel {
  readonly architecture?: string;
  /** `tokenizer.ggml.model` */
  readonly tokenizer?: string;
  readonly contextLen?: number;
  readonly template?: string;
  /** Tensors left out. */
  readonly without?: readonly string[];
  /** Weight types other than f32, by tensor. */
  readonly types?: Readonly<Record<string, QuantType>>;
  /** Mixture of experts: adds routed expert tensors that llama does not read. */
  readonly experts?: { readonly count: number; readonly used: number };
}

export const tinySize = { hidden: 256, heads: 8, kvHeads: 4, ffn: 256, vocab: 300 } as const;

export function tinyModel(options: TinyModel = {}): GgufContent {
  const tensors = tensorShapes(options)
    .filter(([name]) => !options.without?.includes(name))
    .map(([name, shape], index) => makeTensor(name, shape, options.types?.[name] ?? "f32", index));
  return { metadata: makeMetadata(options), tensors };
}

function tensorShapes({ experts }: TinyModel): [string, number[]][] {
  const { hidden, heads, kvHeads, ffn, vocab } = tinySize;
  const kvWidth = (hidden / heads) * kvHeads;
  const shapes: [string, number[]][] = [
    ["token_embd.weight", [vocab, hidden]],
    ["blk.0.attn_norm.weight", [hidden]],
    ["blk.0.attn_q.weight", [hidden, hidden]],
    ["blk.0.attn_k.weight", [kvWidth, hidden]],
    ["blk.0.attn_v.weight", [kvWidth, hidden]],
    ["blk.0.attn_output.weight", [hidden, hidden]],
    ["blk.0.ffn_norm.weight", [hidden]],
    ["blk.0.ffn_gate.weight", [ffn, hidden]],
    ["blk.0.ffn_up.weight", [ffn, hidden]],
    ["blk.0.ffn_down.weight", [hidden, ffn]],
    ["output_norm.weight", [hidden]],
  ];
  if (experts) shapes.push(["blk.0.ffn_up_exps.weight", [experts.count, ffn, hidden]]);
  return shapes;
}

function makeTensor(name: string, shape: number[], type: QuantType, index: number) {
  const bytes = new Uint8Array(tensorBytes(type, shape));
  if (type === "f32") {
    const floats = new Float32Array(bytes.buffer);
    const isNorm = name.includes("norm");
    let state = index + 1;
    for (let i = 0; i < floats.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      floats[i] = isNorm ? 1 : (state / 2 ** 32 - 0.5) / 8;
    }
  }
  return { name, type, shape, content: bytes } satisfies GgufTensorSource;
}

/** Three control tokens, 256 bytes, then letters: enough to encode any text. */
function makeTokens(): string[] {
  const bytes = Array.from({ length: 256 }, (_, byte) => {
    return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
  });
  const letters = Array.from("▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN");
  return ["<unk>", "<s>", "</s>", ...bytes, ...letters].slice(0, tinySize.vocab);
}

function makeMetadata(options: TinyModel): [string, GgufValue][] {
  const architecture = options.architecture ?? "llama";
  const tokens = makeTokens();
  const types = tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1));
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const text = (value: string): GgufValue => ({ type: "string", value });
  const { hidden, heads, kvHeads, ffn } = tinySize;
  const metadata: [string, GgufValue][] = [
    ["general.architecture", text(architecture)],
    ["general.name", text("tiny")],
    [`${architecture}.block_count`, u32(1)],
    [`${architecture}.context_length`, u32(options.contextLen ?? 256)],
    [`${architecture}.embedding_length`, u32(hidden)],
    [`${architecture}.feed_forward_length`, u32(ffn)],
    [`${architecture}.attention.head_count`, u32(heads)],
    [`${architecture}.attention.head_count_kv`, u32(kvHeads)],
    ["tokenizer.ggml.model", text(options.tokenizer ?? "llama")],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", value: tokens }],
    ["tokenizer.ggml.scores", { type: "array", of: "f32", value: tokens.map((_, id) => -id) }],
    ["tokenizer.ggml.token_type", { type: "array", of: "i32", value: types }],
  ];
  if (options.template) metadata.push(["tokenizer.chat_template", text(options.template)]);
  if (options.experts) {
    metadata.push([`${architecture}.expert_count`, u32(options.experts.count)]);
    metadata.push([`${architecture}.expert_used_count`, u32(options.experts.used)]);
  }
  return metadata;
}
