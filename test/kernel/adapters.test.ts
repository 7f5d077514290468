// LoRA adapters over tiny models of every weight type: against the model that they are merged
// into, without effect at scale 0, several at once, and what is refused.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AdapterChoice, parseAdapters } from "../../src/engine/adapter-choice.ts";
import { Engine } from "../../src/engine/engine.ts";
import { LoadedModel } from "../../src/engine/loaded-model.ts";
import { defaultModelOptions } from "../../src/engine/options.ts";
import { type GgufContent, writeGguf } from "../../src/weights/gguf-writer.ts";
import { logitsOf, nmse } from "../golden/reference-logits.ts";
import { expectSameBits } from "./compare.ts";
import { cpuVariants } from "./executor.ts";
import { Random } from "./random.ts";
import { adapterMetadata, merged, tinyAdapter } from "./tiny-adapter.ts";
import { tinyMixes, tinyModel, tinyVocabSize } from "./tiny-model.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tinfer-adapters-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const tokenIds = Array.from({ length: 40 }, (_, i) => (i * 31 + 7) % tinyVocabSize);

function save(name: string, content: GgufContent): string {
  const path = join(folder, `${name}.gguf`);
  writeGguf(path, content);
  return path;
}

const f32Types = Object.fromEntries(
  Object.keys(tinyMixes["floats"]!).map((part) => [part, part === "numExperts" ? 0 : "f32"]),
) as unknown as (typeof tinyMixes)["floats"];

/** Without a matrix of its own for the output. */
function tied(model: GgufContent): GgufContent {
  const tensors = [...model.tensors].filter(({ name }) => name !== "output.weight");
  return { ...model, tensors };
}

const executors = [
  { backend: "reference" },
  ...cpuVariants.map((cpuVariant) => ({ backend: "cpu", cpuVariant })),
];

describe("as if merged", () => {
  const model = tinyModel("plain", f32Types!);
  const withExperts = tinyModel("plain experts", { ...f32Types!, numExperts: 5 });
  const cases = [
    ["f32 factors", model, {}, 1e-9],
    ["f16 factors", model, { typeA: "f16", typeB: "f16" }, 1e-9],
    // Their products take activations of 8 bits.
    ["q8_0 and bf16 factors", model, { typeA: "q8_0", typeB: "bf16" }, 1e-3],
    ["f32 factors of experts", withExperts, {}, 1e-9],
    ["f16 factors of experts", withExperts, { typeA: "f16", typeB: "f16" }, 1e-9],
  ] as const;
  for (const [name, model, options, tolerance] of cases) {
    test(name, () => {
      const first = tinyAdapter(model, new Random(`first ${name}`), options);
      const wants = (tensor: string) => tensor.includes("attn_k") || tensor.includes("ffn_up");
      const second = tinyAdapter(model, new Random("second"), { alpha: 0.5, wants });
      const base = save("base", model);
      const both = [
        { adapter: first, scale: 0.7 },
        { adapter: second, scale: -2 },
      ];
      const whole = save("merged", merged(model, both));
      const files = [save("first", first.content), save("second", second.content)];
      const adapters = parseAdapters([`${files[0]}=0.7`, `${files[1]}=-2`]);
      for (const executor of executors) {
        const wanted = logitsOf(whole, tokenIds, 64, executor);
        const found = logitsOf(base, tokenIds, 16, { ...executor, adapters });
        expect(nmse(found, wanted)).toBeLessThan(tolerance);
        expect(nmse(logitsOf(base, tokenIds, 16, executor), wanted)).toBeGreaterThan(0.01);
      }
    });
  }

  test("the embedding alone, where the output shares its matrix", () => {
    const wants = (tensor: string) => tensor === "token_embd.weight";
    const adapter = tinyAdapter(model, new Random("table"), { wants });
    const embedding = [...model.tensors].find(({ name }) => wants(name))!;
    const output = { ...embedding, name: "output.weight" };
    const untied = { ...model, tensors: [...tied(model).tensors, output] };
    const whole = save("merged", merged(untied, [{ adapter, scale: 1 }]));
    const wanted = logitsOf(whole, tokenIds, 64, {});
    const adapters = parseAdapters([save("table", adapter.content)]);
    const found = logitsOf(save("tied", tied(model)), tokenIds, 64, { adapters });
    expect(nmse(found, wanted)).toBeLessThan(1e-9);
  });

  test("the output alone, where it is the embedding's matrix", () => {
    const wants = (tensor: string) => tensor === "output.weight";
    const embedding = [...model.tensors].find(({ name }) => name === "token_embd.weight")!;
    const output = { ...embedding, name: "output.weight" };
    const untied = { ...model, tensors: [...tied(model).tensors, output] };
    const adapter = tinyAdapter(untied, new Random("head"), { wants });
    const whole = save("merged", merged(untied, [{ adapter, scale: 1 }]));
    const adapters = parseAdapters([save("head", adapter.content)]);
    const found = logitsOf(save("tied", tied(model)), tokenIds, 64, { adapters });
    expect(nmse(found, logitsOf(whole, tokenIds, 64, {}))).toBeLessThan(1e-9);
  });
});

describe("without effect at scale 0", () => {
  for (const [mix, types] of Object.entries(tinyMixes)) {
    test(mix, () => {
      const model = tinyModel(mix, types);
      const adapter = tinyAdapter(model, new Random(mix));
      const base = save(mix, model);
      const file = save(`${mix}-adapter`, adapter.content);
      for (const executor of executors) {
        const alone = logitsOf(base, tokenIds, 16, executor);
        const adapters = parseAdapters([`${file}=0`]);
        const found = logitsOf(base, tokenIds, 16, { ...executor, adapters });
        expectSameBits(found, alone, tinyVocabSize, Object.values(executor).join(" "));
        const chosen = { ...executor, adapters: parseAdapters([file]) };
        expect(logitsOf(base, tokenIds, 1, chosen)).toEqual(logitsOf(base, tokenIds, 64, chosen));
      }
    });
  }
});

test("the memory of an adapted model is the planned one, before and after a change", () => {
  const model = tinyModel("plain", f32Types!);
  const adapter = tinyAdapter(model, new Random("memory"));
  const base = save("memory", model);
  const adapters = parseAdapters([save("memory-adapter", adapter.content)]);
  using loaded = new LoadedModel(base, { ...defaultModelOptions, contextLen: 64 });
  const bytes = loaded.facts.weightBytes;
  for (const choices of [adapters, [], adapters]) {
    loaded.setAdapters(choices);
    // The loader itself asserts that it took what was planned.
    expect(loaded.session.memory).toEqual(loaded.memoryPlan.memory);
    const own = [...adapter.content.tensors].reduce((sum, { content }) => {
      return sum + (content as Uint8Array).length;
    }, 0);
    expect(loaded.facts.weightBytes - bytes).toBe(choices.length === 0 ? 0 : own);
  }
});

describe("refused", () => {
  const model = tinyModel("plain", f32Types!);
  const wants = (tensor: string) => tensor === "blk.0.attn_q.weight";
  const good = tinyAdapter(model, new Random("good"), { wants, ranks: [8] });
  const [a, b] = [...good.content.tensors] as [
    typeof good.content.tensors extends Iterable<infer T> ? T : never,
    typeof good.content.tensors extends Iterable<infer T> ? T : never,
  ];
  const with_ = (key: string, value: string) =>
    adapterMetadata(4).map(([name, old]) => {
      return [name, name === key ? { type: "string", value } : old] as const;
    }) as GgufContent["metadata"];
  const floats = (name: string, shape: readonly number[]) => {
    const content = new Uint8Array(shape.reduce((x, y) => x * y, 4));
    return { name, type: "f32" as const, shape, content };
  };
  const metadata = good.content.metadata;
  const cases: readonly (readonly [string, GgufContent, RegExp])[] = [
    ["a model", model, /is no adapter/],
    ["other kinds", { metadata: with_("adapter.type", "ia3"), tensors: [a, b] }, /'ia3'/],
    [
      "others' architecture",
      { metadata: with_("general.architecture", "qwen2"), tensors: [a, b] },
      /'qwen2', this one is 'llama'/,
    ],
    ["half a pair", { metadata, tensors: [a] }, /without 'blk.0.attn_q.weight.lora_b'/],
    ["the other half", { metadata, tensors: [b] }, /without 'blk.0.attn_q.weight.lora_a'/],
    ["nothing", { metadata, tensors: [] }, /changes no tensor/],
    [
      "whole tensors",
      { metadata, tensors: [a, b, floats("blk.0.attn_norm.weight", [256])] },
      /'blk.0.attn_norm.weight' is not a factor/,
    ],
    [
      "unknown tensors",
      {
        metadata,
        tensors: [
          floats("blk.7.x.weight.lora_a", [8, 256]),
          floats("blk.7.x.weight.lora_b", [256, 8]),
        ],
      },
      /'blk.7.x.weight', which the model does not have/,
    ],
    [
      "tensors without products",
      {
        metadata,
        tensors: [
          floats("output_norm.weight.lora_a", [8, 256]),
          floats("output_norm.weight.lora_b", [1, 8]),
        ],
      },
      /'output_norm.weight', which is not supported/,
    ],
    [
      "other widths",
      { metadata, tensors: [floats(a.name, [8, 128]), b] },
      /lora_a is \[8, 128\] instead of \[8, 256\]/,
    ],
    [
      "ranks that differ",
      { metadata, tensors: [a, floats(b.name, [256, 4])] },
      /lora_b is \[256, 4\] instead of \[256, 8\]/,
    ],
  ];
  for (const [what, content, message] of cases) {
    test(what, () => {
      const base = save("refusing", model);
      const adapters = parseAdapters([save("refused", content)]);
      expect(() => new LoadedModel(base, { ...defaultModelOptions, adapters })).toThrow(message);
    });
  }

  test("stacks of other sizes", () => {
    const types = tinyMixes["experts"]!;
    const name = "blk.0.ffn_up_exps.weight";
    const tensors = [floats(`${name}.lora_a`, [4, 8, 256]), floats(`${name}.lora_b`, [5, 512, 8])];
    const base = save("experts", tinyModel("experts", types));
    const adapters = parseAdapters([save("experts-adapter", { metadata, tensors })]);
    expect(() => new LoadedModel(base, { ...defaultModelOptions, adapters })).toThrow(
      /lora_a is \[4, 8, 256\] instead of \[5, 8, 256\]; tensor .* is \[5, 512, 256\]/,
    );
  });

  test("too many", () => {
    const base = save("refusing", model);
    const adapters = parseAdapters(Array(17).fill(save("one", good.content)));
    expect(() => new LoadedModel(base, { ...defaultModelOptions, adapters })).toThrow(/at most 16/);
  });

  test("a change that fails leaves what there was", async () => {
    const base = save("refusing", model);
    const adapters = parseAdapters([`${save("kept", good.content)}=0.5`]);
    const bad = parseAdapters([save("bad", { metadata, tensors: [a] })]);
    await using engine = new Engine(base, { ...defaultModelOptions, contextLen: 64, adapters });
    await expect(engine.setAdapters(bad)).rejects.toThrow(/without/);
    expect(engine.facts.adapters).toEqual(adapters);
    await engine.setAdapters(parseAdapters([]));
    expect(engine.facts.adapters).toEqual([]);
  });
});

test("FILE[=SCALE]", () => {
  const plain = (choices: readonly AdapterChoice[]) =>
    choices.map(({ name, scale }) => [name, scale]);
  const parsed = parseAdapters(["a/style.gguf", "b/style.gguf=0.25", "tone=-1"]);
  expect(plain(parsed)).toEqual([
    ["style", 1],
    ["style-2", 0.25],
    ["tone", -1],
  ]);
  for (const text of ["x.gguf=", "x.gguf=much", "x.gguf=NaN"]) {
    expect(() => parseAdapters([text])).toThrow(/not a number/);
  }
});
