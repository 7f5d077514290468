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
import { adapterMetadata, type TinyAdapter, tinyAdapter } from "./tiny-adapter.ts";
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

/** Swaps rows and columns of each of `count` matrices. */
function turned({ shape, values }: { shape: number[]; values: Float32Array }, count: number) {
  const [rows, cols] = [shape[0]! / count, shape[1]!];
  const size = rows * cols;
  return Float32Array.from(values, (_, i) => {
    const place = i % size;
    return values[i - place + (place % rows) * cols + Math.floor(place / rows)]!;
  });
}

test("experts that are one parameter, in both of PEFT's forms", () => {
  const numExperts = 5;
  const [hidden, width, rank] = [256, 512, 3];
  const experts = tinyModel("parameters", { ...tinyMixes["floats"]!, numExperts });
  const base = join(folder, "experts.gguf");
  writeGguf(base, experts);
  const random = new Random("parameters");
  // Expert by expert: what reads the input, and what writes gates and then ups.
  const floats = (rows: number, cols: number) => ({
    shape: [numExperts * rows, cols],
    values: random.normals(numExperts * rows * cols, 0.2),
  });
  const gateUp = { a: floats(rank, hidden), b: floats(2 * width, rank) };
  const down = { a: floats(rank, width), b: floats(hidden, rank) };
  const layer = "blk.1.ffn_";
  const bytes = (values: Float32Array) => new Uint8Array(values.slice().buffer);
  const stack = (name: string, rows: number, cols: number, values: Float32Array) => {
    const shape = [numExperts, rows, cols];
    return { name: `${layer}${name}`, type: "f32" as const, shape, content: bytes(values) };
  };
  const half = (which: 0 | 1) =>
    Float32Array.from({ length: (numExperts * 2 * width * rank) / 2 }, (_, i) => {
      const size = width * rank;
      return gateUp.b.values[i + size * (Math.floor(i / size) + which)]!;
    });
  const tensors = ["gate", "up"].flatMap((part, which) => [
    stack(`${part}_exps.weight.lora_a`, rank, hidden, gateUp.a.values),
    stack(`${part}_exps.weight.lora_b`, width, rank, half(which as 0 | 1)),
  ]);
  tensors.push(stack("down_exps.weight.lora_a", rank, width, down.a.values));
  tensors.push(stack("down_exps.weight.lora_b", hidden, rank, down.b.values));
  const file = join(folder, "experts-adapter.gguf");
  writeGguf(file, { metadata: adapterMetadata(alpha), tensors });
  const logits = (path: string) =>
    logitsOf(base, tokenIds, 16, { adapters: parseAdapters([path]), backend: "reference" });
  const wanted = logits(file);
  expect(nmse(logitsOf(base, tokenIds, 16, { backend: "reference" }), wanted)).toBeGreaterThan(
    0.01,
  );

  /** PEFT's A is expert by expert, the columns of its B have the experts next to each other. */
  const columns = (rows: Float32Array, height: number) => {
    const values = new Float32Array(rows.length);
    rows.forEach((value, i) => {
      const [expert, place] = [Math.floor(i / (rank * height)), i % (rank * height)];
      const [r, row] = [place % rank, Math.floor(place / rank)];
      values[row * rank * numExperts + r * numExperts + expert] = value;
    });
    return { shape: [height, rank * numExperts], values };
  };
  const matrix = (rows: number, values: Float32Array) => ({
    shape: [rows, values.length / rows],
    values,
  });
  const owner = "base_model.model.model.layers.1.mlp.experts";
  for (const form of ["straight", "crossed"] as const) {
    const saved: Tensors = new Map();
    for (const [name, { a, b }, outputs] of [
      [`${owner}.base_layer`, gateUp, 2 * width],
      [owner, down, hidden],
    ] as const) {
      const [first, second] =
        form === "straight"
          ? [a, columns(b.values, outputs)]
          : [
              matrix(numExperts * rank, turned(b, numExperts)),
              columns(turned(a, numExperts), a.shape[1]!),
            ];
      saved.set(`${name}.lora_A.weight`, first);
      saved.set(`${name}.lora_B.weight`, second);
    }
    const config = { r: rank, target_parameters: ["experts.gate_up_proj", "experts.down_proj"] };
    expect(nmse(logits(save(form, saved, config)), wanted)).toBeLessThan(1e-12);
  }
});

describe("refused", () => {
  const wants = (name: string) => name === "blk.0.attn_v.weight";
  const good = peftTensors(tinyAdapter(model, new Random("good"), { wants }));
  const [[nameA, a], [nameB, b]] = [...good] as [[string, never], [string, never]];
  const vector = { shape: [128], values: new Float32Array(128) };
  const lengthsName = nameA.replace("lora_A.weight", "lora_magnitude_vector");
  const withLengths = new Map([...good, [lengthsName, vector]]);
  const short = { shape: [127], values: new Float32Array(127) };
  const tooFew = new Map([...good, [lengthsName, short]]);
  const cases: readonly (readonly [string, Tensors, Record<string, unknown>, RegExp])[] = [
    ["other kinds", good, { peft_type: "IA3" }, /peft_type 'IA3' is not supported/],
    ["DoRA without lengths", good, { use_dora: true }, /without a lora_magnitude_vector of/],
    ["lengths without DoRA", withLengths, {}, /without use_dora, but with a lora_magnitude/],
    ["too few lengths", tooFew, { use_dora: true }, /has 127 values, wanted 128/],
    ["biases of factors", good, { lora_bias: true }, /lora_bias .* is not supported/],
    ["trained biases", good, { bias: "lora_only" }, /bias 'lora_only' .* is not supported/],
    ["whole modules", good, { modules_to_save: ["lm_head"] }, /modules_to_save .* is not supp/],
    ["single rows", good, { trainable_token_indices: [7] }, /trainable_token_indices/],
    ["late beginnings", good, { alora_invocation_tokens: [1, 2] }, /aLoRA/],
    ["layers used twice", good, { layer_replication: [[0, 1]] }, /layer_replication/],
    ["other bases", good, { init_lora_weights: "pissa_niter_4" }, /beside changed weights/],
    ["unknown beginnings", good, { init_lora_weights: "later" }, /'later' \(not known\)/],
    ["no expressions", good, { alpha_pattern: { "(v_proj": 1 } }, /no regular expression/],
    ["half a pair", new Map([[nameA, a]]), {}, /is there without .*lora_B/],
    ["the other half", new Map([[nameB, b]]), {}, /is there without .*lora_A/],
    ["nothing", new Map(), {}, /changes no tensor/],
    ["whole tensors", new Map([["base_model.model.lm_head.weight", a]]), {}, /is not a factor/],
    [
      "layers beyond the model's",
      new Map([
        ["base_model.model.model.layers.2.self_attn.v_proj.lora_A.weight", a],
        ["base_model.model.model.layers.2.self_attn.v_proj.lora_B.weight", b],
      ]),
      {},
      /layers.2.self_attn.v_proj' has no place in this model/,
    ],
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
