// Files may hold queries, keys and values, or gate and up, in one tensor or in several: the golden
// models, rewritten from the one to the other, give the same bits.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readGguf } from "../../src/weights/gguf.ts";
import { type GgufTensorSource, writeGguf } from "../../src/weights/gguf-writer.ts";
import { readTensorBytes } from "../../src/weights/tensor-content.ts";
import { goldenFolder } from "../golden-folder.ts";
import { logitsOf } from "./reference-logits.ts";

type Tensors = Map<string, GgufTensorSource & { content: Uint8Array }>;

/** Puts the tensors `parts` of every layer one after another into one named `whole`. */
function fuse(tensors: Tensors, parts: readonly string[], whole: string): void {
  for (let layer = 0; tensors.has(`blk.${layer}.${parts[0]}`); layer++) {
    const found = parts.map((part) => tensors.get(`blk.${layer}.${part}`)!);
    for (const { name } of found) tensors.delete(name);
    const rows = found.reduce((sum, { shape }) => sum + shape[0]!, 0);
    const name = `blk.${layer}.${whole}`;
    const content = new Uint8Array(Buffer.concat(found.map((part) => part.content)));
    tensors.set(name, { ...found[0]!, name, shape: [rows, ...found[0]!.shape.slice(1)], content });
  }
}

/** Takes the two halves of the tensor `whole` of every layer apart. */
function halve(tensors: Tensors, whole: string, parts: readonly [string, string]): void {
  for (let layer = 0; tensors.has(`blk.${layer}.${whole}`); layer++) {
    const tensor = tensors.get(`blk.${layer}.${whole}`)!;
    tensors.delete(tensor.name);
    const half = tensor.content.length / 2;
    const shape = [tensor.shape[0]! / 2, ...tensor.shape.slice(1)];
    parts.forEach((part, index) => {
      const content = tensor.content.slice(index * half, (index + 1) * half);
      const name = `blk.${layer}.${part}`;
      tensors.set(name, { ...tensor, name, shape, content });
    });
  }
}

const [qkv, biases] = ["weight", "bias"].map((kind) => {
  return ["attn_q", "attn_k", "attn_v"].map((part) => `${part}.${kind}`);
}) as [string[], string[]];

const cases: readonly [model: string, what: string, rewrite: (tensors: Tensors) => void][] = [
  [
    "qwen2",
    "fused weights and biases",
    (tensors) => {
      fuse(tensors, qkv, "attn_qkv.weight");
      fuse(tensors, biases, "attn_qkv.bias");
    },
  ],
  ["qwen2", "fused weights alone", (tensors) => fuse(tensors, qkv, "attn_qkv.weight")],
  [
    "glm4",
    "gate and up apart",
    (tensors) => halve(tensors, "ffn_up.weight", ["ffn_gate.weight", "ffn_up.weight"]),
  ],
];

const golden = goldenFolder("golden fused tensors");
if (golden !== undefined) {
  const folder = mkdtempSync(join(tmpdir(), "tinfer-fused-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  describe("rewritten models", () => {
    for (const [model, what, rewrite] of cases) {
      test(`${model}: ${what}`, () => {
        const path = join(golden, "architectures", `${model}.gguf`);
        const header = readGguf(path);
        const tensors: Tensors = new Map();
        for (const [name, tensor] of header.tensors) {
          const content = readTensorBytes(header, tensor);
          tensors.set(name, { name, type: tensor.type, shape: tensor.shape, content });
        }
        rewrite(tensors);
        expect([...tensors.keys()]).not.toEqual([...header.tensors.keys()]);
        const other = join(folder, "rewritten.gguf");
        writeGguf(other, { metadata: header.values, tensors: tensors.values() });

        const { tokenIds } = JSON.parse(readFileSync(path.replace(".gguf", ".json"), "utf8"));
        const logits = (file: string) => logitsOf(file, tokenIds, 32, { backend: "cpu" });
        expect(logits(other)).toEqual(logits(path));
      });
    }
  });
}
