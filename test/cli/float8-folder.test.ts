// What a model folder in 8-bit floats takes: `plan` and `show` say that its weights are used where
// they lie, with their scales, and the loader takes no more.
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ModelDescription } from "../../src/cli/model-description.ts";
import type { ModelMemory } from "../../src/cli/plan.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { writeSafetensors } from "../golden/float8-fixture.ts";
import { tinfer, tinferJson } from "./spawn.ts";

setDefaultTimeout(60_000);

const scratch = mkdtempSync(join(tmpdir(), "tinfer-float8-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const size = { hidden: 512, heads: 4, kvHeads: 2, ffn: 1216, vocab: 320, layers: 2 } as const;
const headDim = size.hidden / size.heads;
const numBlocks = (count: number) => Math.ceil(count / 128);

/** Matrices in 8-bit floats of blocks, embeddings and norms in F32. */
function writeFolder(modelType: string) {
  const { hidden, heads, kvHeads, ffn, vocab, layers } = size;
  const folder = join(scratch, modelType);
  const tensors = new Map<string, { dtype: string; shape: number[]; bytes: Uint8Array }>();
  let plainBytes = 0;
  let codeBytes = 0;
  let scaleBytes = 0;
  const floats = (name: string, shape: number[]) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: count }, (_, i) => Math.sin(i) / 4);
    tensors.set(name, { dtype: "F32", shape, bytes: new Uint8Array(values.buffer) });
    return count * 4;
  };
  const scaled = (name: string, rows: number, cols: number) => {
    const bytes = Uint8Array.from({ length: rows * cols }, (_, i) => (i * 37) % 0x7e);
    tensors.set(`${name}.weight`, { dtype: "F8_E4M3", shape: [rows, cols], bytes });
    codeBytes += bytes.length;
    scaleBytes += floats(`${name}.weight_scale_inv`, [numBlocks(rows), numBlocks(cols)]);
  };
  plainBytes += floats("model.embed_tokens.weight", [vocab, hidden]);
  plainBytes += floats("model.norm.weight", [hidden]);
  for (let layer = 0; layer < layers; layer++) {
    const name = (part: string) => `model.layers.${layer}.${part}`;
    scaled(name("self_attn.q_proj"), heads * headDim, hidden);
    scaled(name("self_attn.k_proj"), kvHeads * headDim, hidden);
    scaled(name("self_attn.v_proj"), kvHeads * headDim, hidden);
    scaled(name("self_attn.o_proj"), hidden, heads * headDim);
    scaled(name("mlp.gate_proj"), ffn, hidden);
    scaled(name("mlp.up_proj"), ffn, hidden);
    scaled(name("mlp.down_proj"), hidden, ffn);
    const norms = ["input_layernorm", "post_attention_layernorm"];
    for (const norm of norms) plainBytes += floats(name(`${norm}.weight`), [hidden]);
    if (modelType !== "qwen3") continue;
    for (const norm of ["self_attn.q_norm", "self_attn.k_norm"]) {
      plainBytes += floats(name(`${norm}.weight`), [headDim]);
    }
  }
  mkdirSync(folder);
  writeSafetensors(join(folder, "model.safetensors"), tensors);
  const config = {
    ...{ model_type: modelType, hidden_size: hidden, num_attention_heads: heads },
    ...{ num_key_value_heads: kvHeads, intermediate_size: ffn, vocab_size: vocab },
    ...{ num_hidden_layers: layers, max_position_embeddings: 512, rms_norm_eps: 1e-5 },
    ...{ head_dim: headDim, tie_word_embeddings: true },
    quantization_config: { quant_method: "fp8", weight_block_size: [128, 128] },
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  return { folder, plainBytes, codeBytes, scaleBytes };
}

async function memoryOf(folder: string, flags: readonly string[] = []) {
  const { devices } = await tinferJson<ModelMemory>(["plan", folder, ...flags]);
  return devices[0]!;
}

function takenBy(folder: string): number {
  using model = new LoadedModel(folder, { ...defaultModelOptions, load: "lazy" });
  return model.file.madeBytes;
}

test("every matrix is used where it lies: nothing is made at load", async () => {
  const { folder, plainBytes, codeBytes, scaleBytes } = writeFolder("qwen3");
  const { weights, derived } = await memoryOf(folder);
  expect({ weights, derived }).toEqual({
    weights: plainBytes + codeBytes + scaleBytes,
    derived: 0,
  });
  expect(takenBy(folder)).toBe(0);
  const { types, loading } = await tinferJson<ModelDescription>(["show", folder]);
  expect(loading).toEqual({ mappedBytes: weights, derivedBytes: 0 });
  expect(types[0]).toEqual({ type: "f8_e4m3", tensors: 7 * size.layers, bytes: codeBytes });
  const { stdout } = await tinfer(["show", folder]);
  expect(stdout).toMatch(/loading +\d\.\d+ MB used in place$/m);
});

test("rows in another order are copied as they are, with a scale of their own", async () => {
  const { folder, plainBytes, codeBytes, scaleBytes } = writeFolder("llama");
  const { hidden, heads, kvHeads, layers } = size;
  const rows = (heads + kvHeads) * headDim * layers;
  const { weights, derived } = await memoryOf(folder);
  const moved = (rows / 128) * numBlocks(hidden) * 4;
  expect(weights).toBe(plainBytes + codeBytes + scaleBytes - rows * hidden - moved);
  const made = rows * hidden + rows * numBlocks(hidden) * 4;
  const { loading } = await tinferJson<ModelDescription>(["show", folder]);
  expect(loading).toEqual({ mappedBytes: weights, derivedBytes: made });
  // Each begins on a line, and may be read past its end; memory comes in pages.
  expect(derived).toBeGreaterThanOrEqual(made);
  expect(derived).toBeLessThan(made + 4 * layers * 128 + 2 ** 16);
  expect(takenBy(folder)).toBe(derived);
});

test("quantised while it loads, all of it is made", async () => {
  const { folder } = writeFolder("mistral");
  const { hidden, ffn, heads, kvHeads, vocab, layers } = size;
  const perLayer = 2 * hidden * (heads + kvHeads) * headDim + 3 * hidden * ffn;
  const { derived } = await memoryOf(folder, ["--quantize", "q8_0"]);
  const elements = perLayer * layers + vocab * hidden;
  // 34 bytes for 32 weights.
  expect(derived).toBeGreaterThanOrEqual((elements / 32) * 34);
  expect(derived).toBeLessThan((elements / 32) * 34 + 2 ** 17);
});
