// LoRA adapters as PEFT saves them: the same logits as the same adapter in GGUF, several forms of
// the configuration, and what is refused.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAdapters } from "../../src/engine/adapter-choice.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { writeGguf } from "../../src/weights/gguf-writer.ts";
import { logitsOf, nmse } from "../golden/reference-logits.ts";
import { Random } from "./random.ts";
import { type TinyAdapter, tinyAdapter } from "./tiny-adapter.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-peft-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const tokenIds = Array.from({ length: 24 }, (_, i) => (i * 31 + 7) % tinyVocabSize);
const model = tinyModel("peft", { ...tinyMixes["floats"]!, numExperts: 0 });
const [headDim, alpha] = [64, 6];
const moduleNames: Readonly<Record<string, string>> = {
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

function moduleOf(target: string): string {
  if (target === "token_embd.weight") return "model.embed_tokens";
  if (target === "output.weight") return "lm_head";
  const [, layer, part] = /^blk\.(\d+)\.(\w+)\.weight$/.exec(target)!;
  return `model.layers.${layer}.${moduleNames[part!]}`;
}

type Tensors = Map<string, { shape: number[]; values: Float32Array }>;

/** The same factors as PEFT has them: halves of heads apart, tables the other way round. */
function peftTensors({ updates }: TinyAdapter): Tensors {
  const tensors: Tensors = new Map();
  for (const { target, rank, rows, cols, isTable, a, b } of updates) {
    const floats = (bytes: unknown) => new Float32Array((bytes as Uint8Array).slice().buffer);
    const [valuesA, valuesB] = [floats(a.content), floats(b.content)];
    const name = `base_model.model.${moduleOf(target)}`;
    if (isTable) {
      const turned = new Float32Array(rank * rows);
      turned.forEach((_, i) => {
        turned[i] = valuesA[(i % rows) * rank + Math.floor(i / rows)]!;
      });
      tensors.set(`${name}.lora_embedding_A`, { shape: [rank, rows], values: turned });
      tensors.set(`${name}.lora_embedding_B`, { shape: [cols, rank], values: valuesB });
      continue;
    }
    const isRotated = /attn_[qk]/.test(target);
    const placed = new Float32Array(valuesB.length);
    for (let row = 0; row < rows; row++) {
      const inHead = row % headDim;
      const half = row - inHead + (inHead % 2) * (headDim / 2) + (inHead >> 1);
      const to = isRotated ? half : row;
      placed.set(valuesB.subarray(row * rank, (row + 1) * rank), to * rank);
    }
    tensors.set(`${name}.lora_A.weight`, { shape: [rank, cols], values: valuesA });
    tensors.set(`${name}.lora_B.weight`, { shape: [rows, rank], values: placed });
  }
  return tensors;
}

function save(name: string, tensors: Tensors, config: Record<string, unknown> = {}): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  const all = { peft_type: "LORA", r: 8, lora_alpha: alpha, ...config };
  writeFileSync(join(path, "adapter_config.json"), JSON.stringify(all));
  let end = 0;
  const header: Record<string, unknown> = {};
  for (const [tensor, { shape, values }] of tensors) {
    header[tensor] = { dtype: "F32", shape, data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const data = [...tensors.values()].map(({ values }) => Buffer.from(values.buffer));
  writeFileSync(join(path, "adapter_model.safetensors"), Buffer.concat([length, text, ...data]));
  return path;
}

test("the same as in GGUF", () => {
  const adapter = tinyAdapter(model, new Random("peft"), { alpha });
  const base = join(folder, "base.gguf");
  writeGguf(base, model);
  const file = join(folder, "adapter.gguf");
  writeGguf(file, adapter.content);
  const logits = (texts: string[]) =>
    logitsOf(base, tokenIds, 16, { adapters: parseAdapters(texts) });
  const wanted = logits([file]);
  expect(nmse(logits([]), wanted)).toBeGreaterThan(0.01);
  const tensors = peftTensors(adapter);
  expect(logits([save("adapter", tensors)])).toEqual(wanted);
  // PEFT's other ways to say how much.
  const ranks = [...tensors.keys()].map((name) =>
    name.replace(/^base_model\.model\.|\.lora_.*/g, ""),
  );
  const pattern = Object.fromEntries(ranks.map((module) => [module, alpha]));
  expect(logits([save("pattern", tensors, { lora_alpha: 1, alpha_pattern: pattern })])).toEqual(
    wanted,
  );
  const one = tinyAdapter(model, new Random("one"), { alpha, ranks: [16] });
  writeGguf(file, one.content);
  const stable = save("stable", peftTensors(one), { lora_alpha: alpha / 4, use_rslora: true });
  expect(logits([stable])).toEqual(logits([file]));
});

test("its factors are counted once, among the tables", () => {
  const adapter = tinyAdapter(model, new Random("counted"), { alpha });
  const base = join(folder, "counted.gguf");
  writeGguf(base, model);
  const facts = (texts: string[]) => {
    const options = { ...defaultModelOptions, contextLen: 64, adapters: parseAdapters(texts) };
    using loaded = new LoadedModel(base, options);
    return loaded.facts;
  };
  const tensors = peftTensors(adapter);
  const [without, having] = [facts([]), facts([save("counted", tensors)])];
  const own = [...tensors.values()].reduce((sum, { values }) => sum + values.byteLength, 0);
  expect(having.weightBytes - without.weightBytes).toBe(own);
  expect(having.mappedWeightBytes).toBe(without.mappedWeightBytes);
  const tables = having.tableBytes - without.tableBytes;
  expect(tables).toBeGreaterThan(own - 2 ** 12);
  expect(tables).toBeLessThan(own + 128 * tensors.size + 2 ** 12);
});

describe("refused", () => {
  const wants = (name: string) => name === "blk.0.attn_v.weight";
  const good = peftTensors(tinyAdapter(model, new Random("good"), { wants }));
  const [[nameA, a], [nameB, b]] = [...good] as [[string, never], [string, never]];
  const cases: readonly (readonly [string, Tensors, Record<string, unknown>, RegExp])[] = [
    ["other kinds", good, { peft_type: "IA3" }, /peft_type 'IA3' is not supported/],
    ["DoRA", good, { use_dora: true }, /use_dora is not supported/],
    ["half a pair", new Map([[nameA, a]]), {}, /is there without .*lora_B/],
    ["the other half", new Map([[nameB, b]]), {}, /is there without .*lora_A/],
    ["nothing", new Map(), {}, /changes no tensor/],
    ["whole tensors", new Map([["base_model.model.lm_head.weight", a]]), {}, /is not a factor/],
    [
      "unknown modules",
      new Map([
        ["base_model.model.model.layers.0.conv.lora_A.weight", a],
        ["base_model.model.model.layers.0.conv.lora_B.weight", b],
      ]),
      {},
      /has no place in this model/,
    ],
  ];
  for (const [what, tensors, config, message] of cases) {
    test(what, () => {
      const base = join(folder, "refusing.gguf");
      writeGguf(base, model);
      const adapters = parseAdapters([save(`refused ${what}`, tensors, config)]);
      expect(() => new LoadedModel(base, { ...defaultModelOptions, adapters })).toThrow(message);
    });
  }
});
