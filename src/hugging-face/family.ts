// What one family of Hugging Face models is in GGUF's words: the border where names of files are
// translated. Each family of `families/` is a table; all of them share `common.ts`.
import type { DerivedTensor } from "../weights/model-header.ts";
import type { RowSource } from "../weights/rows.ts";
import type { JsonObject } from "./json-file.ts";
import type { MetadataValues } from "./metadata-values.ts";

/** Where bytes begin. */
export interface Place {
  readonly fileIndex: number;
  readonly offset: number;
}

/** A tensor on its way from its file: what a conversion changes, and what it makes. */
export interface SourceTensor {
  /** Outermost first. */
  readonly shape: readonly number[];
  /** The elements as rows of the last dimension. */
  readonly rows: RowSource;
  /** Set while the bytes are those of the file. */
  readonly place?: Place;
  /** Where the scales lie, if they are as they are used. */
  readonly scalePlace?: Place;
}

/**
 * What the rows of a conversion's result were, where that is not a choice of its source's rows:
 * its columns, the columns of each of its heads, or its rows just as they are.
 */
export type RowOrigin = "columns" | "headColumns" | "sameRows";

/** `rowOrigin` tells adapters which of their two factors goes through the conversion. */
export type Conversion = ((tensor: SourceTensor, config: JsonObject) => SourceTensor) & {
  readonly rowOrigin?: RowOrigin;
};

export interface Target {
  /** GGUF's name for this part, without layer and ending. */
  readonly to: string;
  readonly convert?: Conversion;
  /** The ending where it is not that of the source: ".weight", or "" for none. */
  readonly ending?: string;
}

/** A GGUF name, that and a conversion, several of them, or null for what is not used. */
export type Targets = string | Target | readonly Target[] | null;

export interface FolderFamily {
  /** `model_type` values of config.json. */
  readonly modelTypes: readonly string[];
  /** The GGUF architecture. */
  readonly architecture: string;
  /** Keys beyond the common ones, which it may overwrite. */
  readonly metadata?: (config: JsonObject, values: MetadataValues) => void;
  /** Parts of layers and names outside of layers, beyond and over the common ones. */
  readonly names?: Readonly<Record<string, Targets>>;
  /** Tensors that follow from the configuration alone. */
  readonly extraTensors?: (config: JsonObject) => readonly DerivedTensor[];
}
