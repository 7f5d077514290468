// Opens a LoRA adapter as Hugging Face's PEFT saves it (adapter_config.json and
// adapter_model.safetensors) and presents its factors under GGUF's names and in GGUF's order of
// rows. What kind of model it is for, only the loaded model can say.
import { join } from "node:path";
import { TinferError } from "../core/errors.ts";
import { quote } from "../weights/gguf-values.ts";
import { fileRows, type RowSource } from "../weights/rows.ts";
import { readSafetensors, type SafeTensor } from "../weights/safetensors.ts";
import { expertFactors, expertParameters, type ParameterSizes } from "./adapter-experts.ts";
import { AdapterSettings, mergeHint } from "./adapter-settings.ts";
import { transpose } from "./conversions.ts";
import { folderFamilyFor } from "./families/registry.ts";
import type { Conversion, SourceTensor, Target } from "./family.ts";
import { JsonObject, readFolderJson } from "./json-file.ts";
import { floatTypes, targetsOf } from "./tensors.ts";

/** What must be known of the model to translate an adapter. */
export interface AdaptedModel extends ParameterSizes {
  /** GGUF's name of it. */
  readonly architecture: string;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Of latent heads: rows of keys without the rotated ones, and of values. */
  readonly latentHead: { readonly keyDim: number; readonly valueDim: number } | undefined;
}

export type FolderFactor = Pick<SourceTensor, "shape" | "rows">;

export interface FolderUpdate {
  readonly a: FolderFactor;
  readonly b: FolderFactor;
  /** The update's weight beside the adapter's scale. */
  readonly gain: number;
  /** DoRA: the lengths of the changed outputs, which are the matrix' rows or columns. */
  readonly lengths: { readonly rows: RowSource; readonly of: "rows" | "columns" } | undefined;
}

const configName = "adapter_config.json";
const weightsName = "adapter_model.safetensors";

/** The updates of an adapter folder by the names of the model's tensors. */
export function openAdapterFolder(folder: string, model: AdaptedModel): Map<string, FolderUpdate> {
  const config = readFolderJson(folder, configName);
  if (config === undefined) {
    throw new TinferError("notFound", `${folder} is a folder without ${configName}`, {
      hint: "give a .gguf adapter, or a PEFT folder with its configuration and safetensors",
    });
  }
  const settings = new AdapterSettings(config);
  return new AdapterFolder(join(folder, weightsName), settings, model).updates();
}

/** The tensors of one module's update. */
interface Parts {
  a?: SafeTensor;
  b?: SafeTensor;
  lengths?: SafeTensor;
  isTable?: boolean;
}

class AdapterFolder {
  readonly #path: string;
  readonly #settings: AdapterSettings;
  readonly #model: AdaptedModel;
  readonly #modelConfig: JsonObject;
  readonly #names: Parameters<typeof targetsOf>[1];

  constructor(path: string, settings: AdapterSettings, model: AdaptedModel) {
    this.#path = path;
    this.#settings = settings;
    this.#model = model;
    this.#names = folderFamilyFor(model.architecture).names ?? {};
    this.#modelConfig = new JsonObject(path, {
      num_hidden_layers: model.numLayers,
      num_attention_heads: model.numHeads,
      num_key_value_heads: model.numKvHeads,
      hidden_size: model.hiddenSize,
      head_dim: model.headDim,
      qk_nope_head_dim: model.latentHead?.keyDim,
      v_head_dim: model.latentHead?.valueDim,
    });
  }

  updates(): Map<string, FolderUpdate> {
    const updates = new Map<string, FolderUpdate>();
    for (const [module, parts] of this.#modules()) {
      for (const [name, update] of this.#updatesOf(module, parts)) {
        if (updates.has(name)) throw this.#invalid(`two updates are of ${quote(name)}`);
        updates.set(name, update);
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

  #modules(): Map<string, Parts> {
    const { tensors } = readSafetensors(this.#path);
    const modules = new Map<string, Parts>();
    for (const tensor of tensors.values()) {
      const { module, isTable, part } = this.#parse(tensor.name);
      const parts = modules.get(module) ?? {};
      if (parts[part] !== undefined) throw this.#invalid(`${quote(tensor.name)} is there twice`);
      modules.set(module, Object.assign(parts, { [part]: tensor, ...(isTable && { isTable }) }));
    }
    return modules;
  }

  /**
   * `base_model.model.MODULE.lora_A.weight`, or with the adapter's name before ".weight"; tables
   * have `lora_embedding_A`, DoRA a `lora_magnitude_vector`.
   */
  #parse(name: string): { module: string; isTable: boolean; part: "a" | "b" | "lengths" } {
    const ending = "(?:\\.[^.]+)?(?:\\.weight)?$";
    const pattern = new RegExp(
      `^base_model\\.model\\.(.+)\\.lora_(?:(embedding_)?([AB])|magnitude_vector)${ending}`,
    );
    const found = pattern.exec(name);
    if (found === null || /\.lora_[AB](\.[^.]+)?\.bias$/.test(name)) throw this.#notFactor(name);
    const [, module, table, factor] = found;
    const part = factor === "A" ? "a" : factor === "B" ? "b" : "lengths";
    return { module: module!, isTable: table !== undefined, part };
  }

  #notFactor(name: string): TinferError {
    const text = `${this.#path}: ${quote(name)} is not a factor of an update`;
    const isEmbedding = /\.(embed_tokens|lm_head|wte)(\.base_layer)?\.weight$/.test(name);
    return new TinferError("unsupported", text, {
      hint: isEmbedding
        ? "it is the whole matrix: save the adapter with save_embedding_layers=False where that did not change, else merge it into the model with PEFT"
        : mergeHint,
    });
  }

  #updatesOf(module: string, parts: Parts): [string, FolderUpdate][] {
    const { a, b, isTable = false } = parts;
    if (a === undefined || b === undefined) {
      const [there, other] = a === undefined ? ["lora_B", "lora_A"] : ["lora_A", "lora_B"];
      throw this.#invalid(`${quote(`${module}.${there}`)} is there without ${quote(other)}`);
    }
    const lengths = this.#lengths(module, parts.lengths, b.shape[0]!);
    const found = this.#targets(`${module}.weight`);
    const factors = { a: this.#factor(a), b: this.#factor(b), lengths };
    if (found.length === 0) return this.#parameterUpdates(module, factors);
    return found.map(({ name, target }) => {
      if (isTable) return [name, this.#tableUpdate(module, factors)];
      if (target.to.endsWith("_exps")) return [name, this.#expertUpdate(module, target, factors)];
      return [name, this.#update(module, target, factors)];
    });
  }

  /** None for modules that the model has not, or does not use. */
  #targets(name: string): { name: string; target: Target }[] {
    return targetsOf(name, this.#names, this.#model.numLayers) ?? [];
  }

  /** One for each of the module's `numOutputs`. */
  #lengths(
    module: string,
    tensor: SafeTensor | undefined,
    numOutputs: number,
  ): FolderFactor | undefined {
    const isWanted = this.#settings.setsLengths;
    if ((tensor !== undefined) !== isWanted) {
      const what = isWanted ? "use_dora, but without" : "without use_dora, but with";
      throw this.#invalid(`${what} a lora_magnitude_vector of ${quote(module)}`);
    }
    if (tensor === undefined) return undefined;
    const count = tensor.shape.reduce((product, size) => product * size, 1);
    if (count !== numOutputs) {
      throw this.#invalid(`${quote(tensor.name)} has ${count} values, wanted ${numOutputs}`);
    }
    return this.#factor({ ...tensor, shape: [count, 1] });
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

  #tableUpdate(module: string, { a, b, lengths }: Factors): FolderUpdate {
    const gain = this.#settings.gain(module, b.shape[1]!);
    const { rows } = lengths ?? {};
    const columns = rows && ({ rows, of: "columns" } as const);
    return { a: transpose(a, this.#modelConfig), b, gain, lengths: columns };
  }

  #update(module: string, { convert }: Target, { a, b, lengths }: Factors): FolderUpdate {
    const gain = this.#settings.gain(module, b.shape[1]!);
    const changed = this.#converted(convert, b);
    const rows = lengths && this.#converted(convert, lengths).rows;
    if (convert?.rowOrigin !== "headColumns") {
      return { a, b: changed, gain, lengths: rows && { rows, of: "rows" } };
    }
    // (B A)ᵀ = Aᵀ Bᵀ
    const factors = { a: changed, b: transpose(a, this.#modelConfig) };
    return { ...factors, gain, lengths: rows && { rows, of: "columns" } };
  }

  /** Rows of a factor as the conversion of the whole matrix makes them. */
  #converted(convert: Conversion | undefined, factor: FolderFactor): FolderFactor {
    if (convert === undefined || convert.rowOrigin === "sameRows") return factor;
    const config = this.#modelConfig;
    return convert(convert.rowOrigin === "columns" ? transpose(factor, config) : factor, config);
  }

  #noLengths(module: string): TinferError {
    const text = `${this.#path}: use_dora on ${quote(module)} is not supported`;
    return new TinferError("unsupported", text, { hint: mergeHint });
  }

  /** A parameter of a module rather than its weight: those of experts. */
  #parameterUpdates(module: string, factors: Factors): [string, FolderUpdate][] {
    const owner = module.replace(/(\.base_layer)+$/, "");
    const { b, a } = factors;
    const name = expertParameters(a.shape, b.shape, this.#model);
    const own = name === undefined ? [] : this.#targets(`${owner}.${name}`);
    if (own.length === 0) {
      const text = `${this.#path}: module ${quote(module)} has no place in this model`;
      throw new TinferError("unsupported", text, {
        hint: "use the adapter with the model that it was made for, or convert it to GGUF",
      });
    }
    return own.map(({ name: tensor, target }) => {
      return [tensor, this.#expertUpdate(`${owner}.${name}`, target, factors)];
    });
  }

  /** Factors of all experts, in a matrix each. */
  #expertUpdate(module: string, { convert }: Target, { a, b, lengths }: Factors): FolderUpdate {
    if (lengths !== undefined) throw this.#noLengths(module);
    const isTurned = convert?.rowOrigin === "columns";
    const pair = expertFactors(a, b, { ...this.#model, isTurned });
    if (typeof pair === "string") {
      throw new TinferError("unsupported", `${this.#path}, ${quote(module)}: ${pair}`, {
        hint: mergeHint,
      });
    }
    const gain = this.#settings.gain(module, pair.a.shape[1]!);
    return { a: pair.a, b: this.#converted(convert, pair.b), gain, lengths: undefined };
  }
}

interface Factors {
  readonly a: FolderFactor;
  readonly b: FolderFactor;
  readonly lengths: FolderFactor | undefined;
}
