// GGUF adapters of every matrix of a model, experts and latent heads too: the same logits as the
// file that they are merged into, also where model and adapter keep a matrix in other forms.
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAdapters } from "../../src/engine/adapter-choice.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import {
  type GgufContent,
  type GgufTensorSource,
  writeGguf,
} from "../../src/weights/gguf-writer.ts";
import { readTensorBytes } from "../../src/weights/tensor-content.ts";
import { goldenFolder } from "../golden-folder.ts";
import { Random } from "../kernel/random.ts";
import { merged, type TinyAdapter, tinyAdapter } from "../kernel/tiny-adapter.ts";
import { logitsOf, nmse } from "./reference-logits.ts";

setDefaultTimeout(120_000);

const golden = goldenFolder("forms of adapters");
const models = golden === undefined ? undefined : join(golden, "architectures");
const folder = mkdtempSync(join(tmpdir(), "tinfer-forms-"));
afterAll(() => rmSync(folder, { recursive: true }));

const tokenIds = Array.from({ length: 24 }, (_, i) => (i * 31 + 7) % 512);

type Tensor = GgufTensorSource & { content: Uint8Array };

function contentOf(name: string): GgufContent & { tensors: Tensor[] } {
  const header = readGguf(join(models!, `${name}.gguf`));
  const tensors = [...header.tensors.values()].map((tensor): Tensor => {
    return { ...tensor, content: readTensorBytes(header, tensor) };
  });
  return { metadata: header.values, tensors };
}

function save(name: string, content: GgufContent): string {
  const path = join(folder, `${name}.gguf`);
  writeGguf(path, content);
  return path;
}

function adapterOf(name: string, model: GgufContent, wants?: (tensor: string) => boolean) {
  const architecture = name.startsWith("deepseek2") ? "deepseek2" : architectures[name]!;
  const isTied = ![...model.tensors].some((tensor) => tensor.name === "output.weight");
  const all = (tensor: string) => {
    if (tensor === "token_embd.weight" && isTied) return false;
    return !/^(position_embd|rope_)|bias$/.test(tensor) && (wants?.(tensor) ?? true);
  };
  return tinyAdapter(model, new Random(name), { architecture, ranks: [2, 5, 3], wants: all });
}

const architectures: Readonly<Record<string, string>> = {
  ...{ mixtral: "llama", mistral4: "mistral4", llama4: "llama4", "gpt-oss": "gpt-oss" },
  ...{ qwen2moe: "qwen2moe", "granitemoe-shared": "granitemoe", phimoe: "phimoe" },
  ...{ "phi3-longrope": "phi3", gpt2: "gpt2", glm4: "glm4" },
};

/** `model` with the adapter's file has the logits of `whole`. */
function check(
  name: string,
  model: string,
  adapter: GgufContent,
  whole: string,
  tolerance = 1e-8,
): void {
  const adapters = parseAdapters([`${save(`${name}-adapter`, adapter)}=0.6`]);
  for (const backend of ["cpu", "reference"]) {
    const wanted = logitsOf(whole, tokenIds, tokenIds.length, { backend });
    const found = logitsOf(model, tokenIds, 10, { backend, adapters });
    expect(nmse(found, wanted)).toBeLessThan(tolerance);
    expect(nmse(logitsOf(model, tokenIds, 24, { backend }), wanted)).toBeGreaterThan(1e-3);
  }
  const alone = logitsOf(model, tokenIds, 24, {});
  const off = parseAdapters([`${adapters[0]!.path}=0`]);
  expect(logitsOf(model, tokenIds, 24, { adapters: off })).toEqual(alone);
}

const floats = ({ content }: Tensor) => new Float32Array(content.slice().buffer);
const bytes = (values: Float32Array) => new Uint8Array(values.buffer);

/** Stacks of matrices as a tensor for each. */
function apart(tensors: readonly Tensor[]): Tensor[] {
  return tensors.flatMap((tensor) => {
    const [, part, factor] = /^(blk\.\d+\.ffn_\w+)_exps\.weight(.*)$/.exec(tensor.name) ?? [];
    if (part === undefined) return [tensor];
    const [count, ...shape] = tensor.shape as [number, number, number];
    const size = tensor.content.length / count;
    return Array.from({ length: count }, (_, e) => {
      const content = tensor.content.slice(e * size, (e + 1) * size);
      return { ...tensor, name: `${part}.${e}.weight${factor}`, shape, content };
    });
  });
}

/** Factors of gates and ups that share `a` as those of one tensor. */
function fused(tensors: readonly Tensor[]): Tensor[] {
  return tensors.flatMap((tensor) => {
    if (/ffn_up_exps\.weight\.lora_/.test(tensor.name)) return [];
    if (!/ffn_gate_exps\.weight\.lora_/.test(tensor.name)) return [tensor];
    const name = tensor.name.replace("gate", "gate_up");
    if (tensor.name.endsWith("lora_a")) return [{ ...tensor, name }];
    const up = tensors.find((other) => other.name === tensor.name.replace("gate", "up"))!;
    const [count, rows, rank] = tensor.shape as [number, number, number];
    const size = rows * rank * 4;
    const parts = Array.from({ length: count }, (_, e) =>
      [tensor, up].map(({ content }) => content.subarray(e * size, (e + 1) * size)),
    ).flat();
    const content = new Uint8Array(Buffer.concat(parts));
    return [{ ...tensor, name, shape: [count, 2 * rows, rank], content }];
  });
}

/** The update of `attn_kv_b` as that of the keys, transposed, and of the values. */
function splitHeads(adapter: readonly Tensor[], keyDim: number, valueDim: number): Tensor[] {
  return adapter.flatMap((tensor) => {
    const [, layer, factor] =
      /^(blk\.\d+)\.attn_kv_b\.weight\.(lora_[ab])$/.exec(tensor.name) ?? [];
    if (layer === undefined) return [tensor];
    const [rows, cols] = tensor.shape as [number, number];
    const values = floats(tensor);
    const at = (row: number, col: number) => values[row * cols + col]!;
    const make = (part: string, shape: number[], value: (i: number) => number): Tensor => {
      const size = shape.reduce((a, b) => a * b, 1);
      const content = bytes(Float32Array.from({ length: size }, (_, i) => value(i)));
      return { name: `${layer}.${part}`, type: "f32", shape, content };
    };
    if (factor === "lora_a") {
      const turned = (i: number) => at(i % rows, Math.floor(i / rows));
      return [
        make("attn_k_b.weight.lora_b", [1, cols, rows], turned),
        make("attn_v_b.weight.lora_a", [1, rows, cols], (i) => values[i]!),
      ];
    }
    const stride = keyDim + valueDim;
    const heads = rows / stride;
    return [
      make("attn_k_b.weight.lora_a", [heads, cols, keyDim], (i) => {
        const [head, r] = [Math.floor(i / (cols * keyDim)), Math.floor(i / keyDim) % cols];
        return at(head * stride + (i % keyDim), r);
      }),
      make("attn_v_b.weight.lora_b", [heads, valueDim, cols], (i) => {
        const row = Math.floor(i / cols);
        const head = Math.floor(row / valueDim);
        return at(head * stride + keyDim + (row % valueDim), i % cols);
      }),
    ];
  });
}

if (models !== undefined) {
  describe("all matrices of", () => {
    const names = ["deepseek2-v3", "deepseek2-lite", "deepseek2-v3-kvb"];
    for (const name of [...names, ...Object.keys(architectures)]) {
      test(name, () => {
        const model = contentOf(name);
        const adapter = adapterOf(name, model);
        const whole = save(`${name}-merged`, merged(model, [{ adapter, scale: 0.6 }]));
        check(name, join(models, `${name}.gguf`), adapter.content, whole);
      });
    }
  });

  describe("other forms:", () => {
    const experts = (name: string) => /ffn_\w+_exps/.test(name);

    test("stacks for experts apart, and experts apart for stacks", () => {
      const model = contentOf("mixtral");
      const adapter = adapterOf("mixtral", model, experts);
      const whole = save("apart-merged", merged(model, [{ adapter, scale: 0.6 }]));
      const singles = save("apart", { ...model, tensors: apart(model.tensors) });
      check("stacked", singles, adapter.content, whole);
      const { metadata, tensors } = adapter.content;
      const single = { metadata, tensors: apart([...tensors] as Tensor[]) };
      check("single", join(models, "mixtral.gguf"), single, whole);
      check("singles", singles, single, whole);
    });

    test("some experts only", () => {
      const model = contentOf("mixtral");
      const { metadata, tensors } = adapterOf("mixtral", model, experts).content;
      const some = apart([...tensors] as Tensor[]).filter(({ name }) =>
        /\.[15]\.weight/.test(name),
      );
      const singles = { ...model, tensors: apart(model.tensors) };
      const updates = adapterOf("mixtral", model, experts).updates.flatMap((update) => {
        return [1, 5].map((expert) => {
          const target = update.target.replace("_exps", `.${expert}`);
          const factor = (part: string) => some.find(({ name }) => name === `${target}.${part}`)!;
          return { ...update, target, count: 1, a: factor("lora_a"), b: factor("lora_b") };
        });
      });
      const adapter: TinyAdapter = { content: { metadata, tensors: some }, updates, alpha: 4 };
      const whole = save("some-merged", merged(singles, [{ adapter, scale: 0.6 }]));
      check("some", join(models, "mixtral.gguf"), adapter.content, whole);
    });

    test("gates and ups in one tensor, of the model, the adapter, and both", () => {
      const model = contentOf("mistral4");
      const adapter = adapterOf("mistral4", model, experts);
      const whole = save("fused-merged", merged(model, [{ adapter, scale: 0.6 }]));
      const { metadata, tensors } = adapter.content;
      const halves = [...(tensors as Iterable<Tensor>)].flatMap((tensor): Tensor[] => {
        if (!tensor.name.includes("gate_up")) return [tensor];
        const names = ["gate", "up"].map((part) => tensor.name.replace("gate_up", part));
        if (tensor.name.endsWith("lora_a")) return names.map((name) => ({ ...tensor, name }));
        const [count, rows, rank] = tensor.shape as [number, number, number];
        const size = (rows / 2) * rank * 4;
        return names.map((name, half) => {
          const parts = Array.from({ length: count }, (_, e) => {
            return tensor.content.subarray((2 * e + half) * size, (2 * e + half + 1) * size);
          });
          const content = new Uint8Array(Buffer.concat(parts));
          return { ...tensor, name, shape: [count, rows / 2, rank], content };
        });
      });
      check("halves", join(models, "mistral4.gguf"), { metadata, tensors: halves }, whole);
      const again = { metadata, tensors: fused(halves) };
      check("fused again", join(models, "mistral4.gguf"), again, whole);
    });

    test("keys and values of latent heads for a joint tensor", () => {
      const model = contentOf("deepseek2-v3-kvb");
      const adapter = adapterOf("deepseek2-v3-kvb", model);
      const whole = save("heads-merged", merged(model, [{ adapter, scale: 0.6 }]));
      const { metadata, tensors } = adapter.content;
      const split = splitHeads([...tensors] as Tensor[], 16, 16);
      expect(split.length).toBeGreaterThan([...tensors].length);
      const content = { metadata, tensors: split };
      check("heads", join(models, "deepseek2-v3-kvb.gguf"), content, whole);
    });
  });
}
