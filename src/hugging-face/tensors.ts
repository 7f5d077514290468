// The tensors of a folder under GGUF's names: those that can be mapped as they are, and those that
// are made from what the files hold.
import { TinferError } from "../core/errors.ts";
import { isFloat8 } from "../weights/float8.ts";
import { quote } from "../weights/gguf-values.ts";
import type { ModelTensor, TensorScales } from "../weights/model-header.ts";
import { tensorBytes } from "../weights/quant-types.ts";
import type { SourceType } from "../weights/quantize.ts";
import {
  derivedScales,
  derivedTensor,
  fileRows,
  type RowSource,
  scalesName,
} from "../weights/rows.ts";
import type { SafeDtype, SafeTensor } from "../weights/safetensors.ts";
import type { SafetensorsModel } from "../weights/safetensors-folder.ts";
import { unscaledRows } from "../weights/scaled-rows.ts";
import { commonNames, numLayers, otherTowers, unusedNames } from "./common.ts";
import type { FolderFamily, Place, SourceTensor, Target, Targets } from "./family.ts";
import { float8Dtypes, float8Rows } from "./float8-rows.ts";
import type { JsonObject } from "./json-file.ts";
import { mxfp4Rows } from "./mxfp4-rows.ts";

export const floatTypes: Partial<Record<SafeDtype, SourceType>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
};

/** Small matrices whose precision matters more: routers, convolutions, positions. */
const exactMatrices = new RegExp(
  `(${[
    ...["ffn_gate_inp(_shexp)?", "ssm_\\w+", "shortconv\\.conv"],
    ...["position_embd", "token_types", "pos_embd"],
  ].join("|")})\\.weight$`,
);
/** Products of whole matrices among those of state space models. */
const stateProducts = /ssm_(in|out|x|dt|beta_alpha|ba)\.weight$/;

/** Norms, biases and what else kernels read as plain floats. */
function staysF32(name: string, shape: readonly number[]): boolean {
  if (shape.length <= 1 || /(_norm\.weight|\.bias)$/.test(name)) return true;
  return exactMatrices.test(name) && !stateProducts.test(name);
}

export function folderTensors(
  model: SafetensorsModel,
  family: FolderFamily,
  config: JsonObject,
): Map<string, ModelTensor> {
  const reader = new FolderTensors(model, family, config);
  const tensors = new Map<string, ModelTensor>();
  const add = (tensor: ModelTensor) => {
    if (tensors.has(tensor.name)) {
      const text = `two tensors of ${model.paths[0]} mean ${quote(tensor.name)}`;
      throw new TinferError("invalidFile", text, { hint: "download the folder again" });
    }
    tensors.set(tensor.name, tensor);
  };
  for (const source of model.tensors.values()) {
    for (const tensor of reader.convert(source)) add(tensor);
  }
  for (const tensor of family.extraTensors?.(config) ?? []) add(tensor);
  return tensors;
}

const wrappers = new RegExp(
  `^(${[
    ...["model.language_model", "language_model.model", "language_model", "model"],
    ...["transformer", "gpt_neox", "bert", "roberta"],
  ].join("|")})\\.`,
);
const layerName = /^(?:layers|h|blocks|encoder\.layers?)\.(\d+)\.(.+)$/;

/** GGUF names for a tensor, each with what makes it; undefined: it has no place. */
export function targetsOf(
  name: string,
  ownNames: Readonly<Record<string, Targets>>,
  numLayers: number,
): { name: string; target: Target }[] | undefined {
  const inner = name.replace(wrappers, "");
  const [, layer, layerPart] = layerName.exec(inner) ?? [];
  // Layers beyond the model's own predict further tokens in training.
  if (layer !== undefined && Number(layer) >= numLayers) return [];
  const whole = layerPart ?? inner;
  const ending = /\.(weight|bias)$/.exec(whole)?.[0] ?? "";
  const part = whole.slice(0, whole.length - ending.length);
  const expert = /\.experts\.(\d+)\./.exec(part)?.[1];
  const key = expert === undefined ? part : part.replace(`.${expert}.`, ".#.");
  const names = Object.hasOwn(ownNames, key) ? ownNames : commonNames;
  const targets = Object.hasOwn(names, key) ? names[key] : undefined;
  if (targets === undefined) return undefined;
  const prefix = layer === undefined ? "" : `blk.${layer}.`;
  return targetList(targets).map((target) => {
    const to = target.to.replace("#", expert ?? "#");
    const wanted = target.ending ?? (ending === "" ? ".weight" : ending);
    return { name: `${prefix}${to}${wanted}`, target };
  });
}

class FolderTensors {
  readonly #model: SafetensorsModel;
  readonly #config: JsonObject;
  readonly #names: Readonly<Record<string, Targets>>;
  readonly #numLayers: number;
  readonly #block: readonly number[] | undefined;

  constructor(model: SafetensorsModel, family: FolderFamily, config: JsonObject) {
    this.#model = model;
    this.#config = config;
    this.#names = family.names ?? {};
    this.#numLayers = numLayers(config);
    this.#block = scaleBlock(config);
  }

  convert(source: SafeTensor): ModelTensor[] {
    const { name } = source;
    if (otherTowers.test(name) || unusedNames.some((pattern) => pattern.test(name))) return [];
    if (/_scale(_inv)?$/.test(name) && this.#model.tensors.has(name.replace(/_scale.*$/, ""))) {
      return [];
    }
    const isTied = this.#config.flag("tie_word_embeddings");
    if (isTied && name.replace(wrappers, "").startsWith("lm_head.")) return [];
    const targets = targetsOf(name, this.#names, this.#numLayers);
    if (targets === undefined) throw unknownTensor(this.#pathOf(source), name);
    return targets.map(({ name: to, target }) => this.#place(to, source, target));
  }

  #place(name: string, source: SafeTensor, target: Target): ModelTensor {
    const read: SourceTensor = this.#source(source);
    const converted = target.convert?.(read, this.#config) ?? read;
    const { shape, place } = converted;
    const type = staysF32(name, shape) ? "f32" : converted.rows.type;
    if (place !== undefined && type === converted.rows.type) {
      const scales = scalesOf(name, converted);
      return { name, type, shape, ...place, bytes: tensorBytes(type, shape), ...scales };
    }
    const rows = type === "f32" ? unscaledRows(converted.rows) : converted.rows;
    const { numRows, cols } = rows;
    const numElements = numRows * cols;
    // A vector's rows may be single elements; as a tensor it is one row.
    return derivedTensor(name, type, shape, shape.length === 1 ? flat(rows, numElements) : rows);
  }

  #source(tensor: SafeTensor): SourceTensor {
    const shape = tensor.shape.length === 0 ? [1] : tensor.shape;
    const { dtype, offset } = tensor;
    const float8 = float8Dtypes[dtype];
    if (float8 !== undefined) {
      const { tensors } = this.#model;
      const scale = tensors.get(`${tensor.name}_scale_inv`) ?? tensors.get(`${tensor.name}_scale`);
      const pathOf = (part: SafeTensor) => this.#pathOf(part);
      const rows = float8Rows(tensor, { type: float8, pathOf, scale, block: this.#block });
      // Blocks that no kernel takes make F32 of it.
      if (!isFloat8(rows.type)) return { shape, rows };
      const scalePlace = scale?.dtype === "F32" && { scalePlace: placeOf(scale) };
      return { shape, rows, place: placeOf(tensor), ...scalePlace };
    }
    if (tensor.name.endsWith("_blocks")) {
      const scales = this.#model.tensors.get(tensor.name.replace(/_blocks$/, "_scales"));
      const rows = mxfp4Rows(tensor, scales, (part) => this.#pathOf(part));
      return { shape: [...shape.slice(0, -2), rows.cols], rows };
    }
    const type = floatTypes[dtype];
    if (type === undefined) throw wrongDtype(this.#pathOf(tensor), tensor);
    const cols = shape.at(-1)!;
    const numRows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
    const rows = fileRows({ path: this.#pathOf(tensor), offset }, type, [numRows, cols]);
    return { shape, rows, place: placeOf(tensor) };
  }

  #pathOf(tensor: SafeTensor): string {
    return this.#model.paths[tensor.fileIndex]!;
  }
}

const placeOf = ({ fileIndex, offset }: SafeTensor): Place => ({ fileIndex, offset });

/** The scales of a tensor that lies in a file: in a file too, or made at load. */
function scalesOf(
  name: string,
  { rows, scalePlace }: SourceTensor,
): { scales: TensorScales } | undefined {
  if (rows.scales === undefined) return undefined;
  const made = derivedScales(name, rows.scales);
  if (scalePlace === undefined) return { scales: made };
  const { type, shape, bytes } = made.tensor;
  const tensor = { name: scalesName(name), type, shape, bytes, ...scalePlace };
  return { scales: { ...made, tensor } };
}

/** Rows and columns that share a scale, where config.json says so. */
function scaleBlock(config: JsonObject): readonly number[] | undefined {
  const quantisation = config.object("quantization_config");
  const block = quantisation?.numbers("weight_block_size");
  const isSize = (count: number) => Number.isInteger(count) && count > 0 && count < 2 ** 32;
  if (block === undefined || (block.length === 2 && block.every(isSize))) return block;
  throw quantisation!.invalid("weight_block_size", "rows and columns of a block");
}

function targetList(targets: Targets): readonly Target[] {
  if (targets === null) return [];
  if (typeof targets === "string") return [{ to: targets }];
  return "to" in targets ? [targets] : targets;
}

/** Rows of one element each, as one row. */
function flat(rows: RowSource, cols: number): RowSource {
  if (rows.numRows === 1) return rows;
  return { type: rows.type, numRows: 1, cols, read: () => rows.read(0, rows.numRows) };
}

function unknownTensor(path: string, name: string): TinferError {
  return new TinferError("unsupported", `${path}: tensor ${quote(name)} has no place`, {
    hint: "this variant of the family is not known; a GGUF file of the model may run",
  });
}

function wrongDtype(path: string, { name, dtype }: SafeTensor): TinferError {
  return new TinferError("unsupported", `${path}: tensor ${quote(name)} is of dtype ${dtype}`, {
    hint: "tinfer reads F32, F16, BF16, F8_E4M3 and F8_E5M2: take the original weights",
  });
}
