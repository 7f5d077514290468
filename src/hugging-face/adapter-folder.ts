// Opens a LoRA adapter as Hugging Face's PEFT saves it (adapter_config.json and
// adapter_model.safetensors) and presents its factors under GGUF's names and in GGUF's order of
// rows. What kind of model it is for, only the loaded model can say.
import { join } from "node:path";
import { TinferError } from "../core/errors.ts";
import { quote } from "../weights/gguf-values.ts";
import { fileRows, type RowSource, transposedMatrices } from "../weights/rows.ts";
import { readSafetensors, type SafeTensor } from "../weights/safetensors.ts";
import { transpose } from "./conversions.ts";
import { folderFamilyFor } from "./families/registry.ts";
import type { Target } from "./family.ts";
import { JsonObject, readFolderJson } from "./json-file.ts";
import { floatTypes, targetsOf } from "./tensors.ts";

/** What must be known of the model to translate an adapter. */
export interface AdaptedModel {
  /** GGUF's name of it. */
  readonly architecture: string;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly hiddenSize: number;
  readonly headDim: number;
}

export interface FolderFactor {
  readonly shape: readonly [number, number];
  readonly rows: RowSource;
}

export interface FolderUpdate {
  readonly a: FolderFactor;
  readonly b: FolderFactor;
  /** The update's weight beside the adapter's scale. */
  readonly gain: number;
}

const configName = "adapter_config.json";
const weightsName = "adapter_model.safetensors";
const mergeHint = "merge it into the model with PEFT, and convert the result";

/** The updates of an adapter folder by the names of the model's tensors. */
export function openAdapterFolder(folder: string, model: AdaptedModel): Map<string, FolderUpdate> {
  const config = readFolderJson(folder, configName);
  if (config === undefined) {
    throw new TinferError("notFound", `${folder} is a folder without ${configName}`, {
      hint: "give a .gguf adapter, or a PEFT folder with its configuration and safetensors",
    });
  }
  checkKind(config);
  return new AdapterFolder(join(folder, weightsName), config, model).updates();
}

function checkKind(config: JsonObject): void {
  const refuse = (what: string, hint: string) =>
    new TinferError("unsupported", `${config.path}: ${what} is not supported`, { hint });
  const type = config.text("peft_type");
  if (type !== "LORA") throw refuse(`peft_type '${type}'`, "LoRA adapters are (peft_type LORA)");
  for (const flag of ["use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication"]) {
    const value = config.get(flag);
    if (value !== undefined && value !== false) throw refuse(flag, mergeHint);
  }
}

class AdapterFolder {
  readonly #path: string;
  readonly #config: JsonObject;
  readonly #modelConfig: JsonObject;
  readonly #names: Parameters<typeof targetsOf>[1];
  readonly #numLayers: number;

  constructor(path: string, config: JsonObject, model: AdaptedModel) {
    this.#path = path;
    this.#config = config;
    this.#names = folderFamilyFor(model.architecture).names ?? {};
    this.#numLayers = model.numLayers;
    this.#modelConfig = new JsonObject(config.path, {
      num_hidden_layers: model.numLayers,
      num_attention_heads: model.numHeads,
      num_key_value_heads: model.numKvHeads,
      hidden_size: model.hiddenSize,
      head_dim: model.headDim,
    });
  }

  updates(): Map<string, FolderUpdate> {
    const { tensors } = readSafetensors(this.#path);
    const updates = new Map<string, FolderUpdate>();
    for (const tensor of tensors.values()) {
      const { module, isTable, factor } = this.#parse(tensor.name);
      const other = tensor.name.replace(`_${factor}`, factor === "A" ? "_B" : "_A");
      const pair = tensors.get(other);
      if (pair === undefined) {
        throw this.#invalid(`${quote(tensor.name)} is there without ${quote(other)}`);
      }
      if (factor === "B") continue;
      for (const { name, target } of this.#targets(module)) {
        updates.set(name, this.#update(module, { a: tensor, b: pair, isTable }, target));
      }
    }
    if (updates.size === 0) throw this.#invalid("it changes no tensor");
    return updates;
  }

  #invalid(what: string): TinferError {
    return new TinferError("invalidFile", `${this.#path}: ${what}`, {
      hint: "the adapter is incomplete: download or save it again",
    });
  }

  /** `base_model.model.MODULE.lora_A.weight`, or with the adapter's name before ".weight". */
  #parse(name: string): { module: string; isTable: boolean; factor: "A" | "B" } {
    const pattern = /^base_model\.model\.(.+)\.lora_(embedding_)?([AB])(\.[^.]+)?(\.weight)?$/;
    const [, module, table, factor] = pattern.exec(name) ?? [];
    if (module !== undefined) {
      return { module, isTable: table !== undefined, factor: factor as "A" | "B" };
    }
    const text = `${this.#path}: ${quote(name)} is not a factor of an update`;
    throw new TinferError("unsupported", text, { hint: `${mergeHint}` });
  }

  #targets(module: string): { name: string; target: Target }[] {
    const found = targetsOf(`${module}.weight`, this.#names, this.#numLayers);
    if (found !== undefined && found.length > 0) return found;
    const text = `${this.#path}: module ${quote(module)} has no place in this model`;
    throw new TinferError("unsupported", text, {
      hint: "use the adapter with the model that it was made for, or convert it to GGUF",
    });
  }

  #update(
    module: string,
    pair: { a: SafeTensor; b: SafeTensor; isTable: boolean },
    { convert }: Target,
  ): FolderUpdate {
    const [a, b] = [this.#factor(pair.a), this.#factor(pair.b)];
    const rank = b.shape[1];
    const gain = this.#gain(module, rank);
    if (pair.isTable) {
      const { numRows } = a.rows;
      const rows = transposedMatrices(a.rows, { start: 0, stride: numRows, numRows });
      return { a: { shape: [a.shape[1], a.shape[0]], rows }, b, gain };
    }
    // Factors lie the usual way also where whole matrices are transposed.
    if (convert === undefined || convert === transpose) return { a, b, gain };
    const changed = convert(b, this.#modelConfig);
    const shape = [changed.shape[0]!, changed.shape[1]!] as const;
    return { a, b: { shape, rows: changed.rows }, gain };
  }

  #factor({ name, dtype, shape, offset }: SafeTensor): FolderFactor {
    const type = floatTypes[dtype];
    if (shape.length !== 2 || type === undefined) {
      const what = `${quote(name)} is ${dtype} [${shape.join(", ")}], wanted a matrix of floats`;
      throw this.#invalid(what);
    }
    const size = [shape[0]!, shape[1]!] as const;
    return { shape: size, rows: fileRows({ path: this.#path, offset }, type, size) };
  }

  /** alpha / rank, or alpha / √rank (rank-stabilised, arXiv 2312.03732). */
  #gain(module: string, rank: number): number {
    const patterns = this.#config.object("alpha_pattern");
    const key = Object.keys(patterns?.fields ?? {}).find((pattern) => {
      return module === pattern || module.endsWith(`.${pattern}`);
    });
    const alpha =
      key === undefined ? this.#config.requiredNumber("lora_alpha") : patterns!.requiredNumber(key);
    return alpha / (this.#config.flag("use_rslora") ? Math.sqrt(rank) : rank);
  }
}
