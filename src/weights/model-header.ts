// What a model on disk holds, whichever format its files have: metadata in GGUF's vocabulary and
// tensors under GGUF's names. `gguf.ts` and the folders of `src/hugging-face/` make it.
import type { TensorInfo } from "./gguf-header.ts";
import type { GgufValue } from "./gguf-types.ts";
import type { Metadata } from "./metadata.ts";
import type { QuantType } from "./quant-types.ts";
import type { RowSource } from "./rows.ts";

/** What the codes of a tensor of 8-bit floats are multiplied by. */
export interface TensorScales {
  /** F32 `[row blocks, column blocks]`; the tensor's rows are those of all its matrices. */
  readonly tensor: ModelTensor;
  /** Rows and columns of a block; the last ones may be cut. */
  readonly blockRows: number;
  readonly blockCols: number;
}

/** A tensor that lies in a file as it is used. */
export interface FileTensor extends TensorInfo {
  readonly scales?: TensorScales;
}

/** A tensor that no file holds as it is used: its bytes are made from what the files hold. */
export interface DerivedTensor {
  readonly name: string;
  readonly type: QuantType;
  /** Outermost first. */
  readonly shape: readonly number[];
  readonly bytes: number;
  /** What it is made of, before it becomes `type`. */
  readonly rows: RowSource;
  readonly scales?: TensorScales;
}

export type ModelTensor = FileTensor | DerivedTensor;

export interface ModelHeader {
  /** "GGUF version 3", "safetensors". */
  readonly format: string;
  /** One path, or all shards in order. */
  readonly paths: readonly string[];
  /** Bytes of each of `paths`. */
  readonly fileBytes: readonly number[];
  readonly metadata: Metadata;
  /** The same with the types that a GGUF file stores, for who writes it. */
  readonly values: ReadonlyMap<string, GgufValue>;
  /** In the order of the files; none in a vocabulary-only file. */
  readonly tensors: ReadonlyMap<string, ModelTensor>;
}

/** Lies in a file exactly as it is used, and can be mapped. */
export function isInFile(tensor: ModelTensor): tensor is FileTensor {
  return "fileIndex" in tensor;
}

export function isDerived(tensor: ModelTensor): tensor is DerivedTensor {
  return "rows" in tensor;
}

/** The tensors, each followed by its scales where they are another one. */
export function* withScales(tensors: Iterable<ModelTensor>): Generator<ModelTensor> {
  for (const tensor of tensors) {
    yield tensor;
    if (tensor.scales !== undefined) yield tensor.scales.tensor;
  }
}
