// What a model file says of itself, for `tinfer show`: read from the header alone, and from any
// GGUF file: vocabularies, adapters and architectures that tinfer does not know.
import { TinferError } from "../core/errors.ts";
import { asLoaded, isModelFolder, openModel } from "../engine/open-model.ts";
import { readModelConfig } from "../models/model-config.ts";
import { knownArchitectures } from "../models/registry.ts";
import { givenRopeOptions, type RopeOptions, withRopeOptions } from "../models/rope-options.ts";
import { createTokenizer } from "../tokenizer/create-tokenizer.ts";
import {
  isStringArray,
  type Metadata,
  type MetadataValue,
  type StringArray,
} from "../weights/metadata.ts";
import {
  isInFile,
  type ModelHeader,
  type ModelTensor,
  withScales,
} from "../weights/model-header.ts";

/** Longer arrays and texts appear by their length and beginning. */
export const metadataLimits = { items: 64, shownItems: 8, textLen: 65_536 } as const;

export interface ModelDescription {
  readonly path: string;
  readonly files: readonly { readonly path: string; readonly bytes: number }[];
  /** "GGUF version 3", "safetensors". */
  readonly format: string;
  readonly name: string | null;
  readonly architecture: string | null;
  /** False where this tinfer can show the model but not run it. */
  readonly architectureKnown: boolean;
  readonly contextLen: number | null;
  /** The same with the rope options that were given. */
  readonly scaledContextLen: number | null;
  readonly parameters: { readonly total: number; readonly active: number };
  readonly weightBytes: number;
  /** Of the weights as they are loaded: what is used in place, and what is made of the files. */
  readonly loading: { readonly mappedBytes: number; readonly derivedBytes: number };
  readonly types: readonly { type: string; tensors: number; bytes: number }[];
  readonly tokenizer: TokenizerDescription | null;
  readonly chatTemplate: boolean;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensors: readonly Pick<ModelTensor, "name" | "type" | "shape" | "bytes">[];
}

export interface TokenizerDescription {
  readonly kind: string;
  readonly vocabSize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
  /** Why this tinfer cannot use it, or null. */
  readonly problem: string | null;
}

export function describeModel(path: string, rope: RopeOptions = {}): ModelDescription {
  const header = openModel(path);
  const { metadata } = header;
  const tensors = [...header.tensors.values()];
  const architecture = textOf(metadata, "general.architecture");
  const contextLen = numberOf(metadata, `${architecture}.context_length`);
  return {
    path,
    files: header.paths.map((file, index) => ({ path: file, bytes: header.fileBytes[index]! })),
    format: header.format,
    name: textOf(metadata, "general.name"),
    architecture,
    architectureKnown: architecture !== null && knownArchitectures().includes(architecture),
    contextLen,
    // Without options nothing but the header's own words is read: files may hold anything.
    scaledContextLen:
      givenRopeOptions(rope).length === 0
        ? contextLen
        : withRopeOptions(readModelConfig(metadata), rope).scaledContextLen,
    parameters: countParameters(header, architecture),
    weightBytes: tensors.reduce((sum, tensor) => sum + tensor.bytes, 0),
    loading: describeLoading(asLoaded(header, isModelFolder(path))),
    types: countTypes(tensors),
    tokenizer: describeTokenizer(metadata),
    chatTemplate: (textOf(metadata, "tokenizer.chat_template") ?? "") !== "",
    metadata: Object.fromEntries([...metadata].map(([key, value]) => [key, describeValue(value)])),
    tensors: tensors.map(({ name, type, shape, bytes }) => ({ name, type, shape, bytes })),
  };
}

function describeLoading({ tensors }: ModelHeader): ModelDescription["loading"] {
  const loaded = [...withScales(tensors.values())];
  const bytesOf = (isCounted: (tensor: ModelTensor) => boolean) =>
    loaded.filter(isCounted).reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    mappedBytes: bytesOf(isInFile),
    derivedBytes: bytesOf((tensor) => !isInFile(tensor)),
  };
}

function textOf(metadata: Metadata, key: string): string | null {
  const value = metadata.get(key);
  return typeof value === "string" ? value : null;
}

function numberOf(metadata: Metadata, key: string): number | null {
  const value = metadata.get(key);
  return typeof value === "number" ? value : null;
}

/** Weights of routed experts: all of a layer's in one tensor, or in files before 2024 one each. */
const expertTensor = /\.ffn_\w+_exps\.|\.ffn_(gate|up|down)\.\d+\./;

/** Active are those that one token passes through: of the routed experts, only those in use. */
export function countParameters(header: ModelHeader, architecture: string | null) {
  return sumWeights(header, architecture, ({ shape }) => shape.reduce((a, b) => a * b, 1));
}

/** The same in bytes. */
export function countWeightBytes(header: ModelHeader, architecture: string | null) {
  return sumWeights(header, architecture, ({ bytes, scales }) => {
    return bytes + (scales?.tensor.bytes ?? 0);
  });
}

function sumWeights(
  header: ModelHeader,
  architecture: string | null,
  sizeOf: (tensor: ModelTensor) => number,
) {
  const numExperts = numberOf(header.metadata, `${architecture}.expert_count`) ?? 0;
  const numUsed = numberOf(header.metadata, `${architecture}.expert_used_count`) ?? numExperts;
  let total = 0;
  let routed = 0;
  for (const tensor of header.tensors.values()) {
    const size = sizeOf(tensor);
    total += size;
    if (expertTensor.test(tensor.name)) routed += size;
  }
  const share = numExperts > 0 ? Math.min(1, Math.max(0, numUsed / numExperts)) : 1;
  return { total, active: total - routed + Math.round(routed * share) };
}

/** The type with the most bytes first. */
function countTypes(tensors: readonly ModelTensor[]) {
  const types = new Map<string, { type: string; tensors: number; bytes: number }>();
  for (const { type, bytes } of tensors) {
    const entry = types.get(type) ?? { type, tensors: 0, bytes: 0 };
    types.set(type, entry);
    entry.tensors++;
    entry.bytes += bytes;
  }
  return [...types.values()].sort((a, b) => b.bytes - a.bytes);
}

function describeTokenizer(metadata: Metadata): TokenizerDescription | null {
  const model = textOf(metadata, "tokenizer.ggml.model");
  const tokens = metadata.get("tokenizer.ggml.tokens");
  if (model === null || model === "none" || model === "no_vocab") return null;
  try {
    const tokenizer = createTokenizer(metadata);
    const { bosId = null, eosId = null } = tokenizer.specialTokens;
    const { kind, vocabSize } = tokenizer;
    return { kind, vocabSize, bosId, eosId, problem: null };
  } catch (error) {
    if (!(error instanceof TinferError)) throw error;
    const vocabSize = isStringArray(tokens) ? tokens.length : 0;
    const problem = [error.message, error.hint].filter((text) => text).join("; ");
    return { kind: model, vocabSize, bosId: null, eosId: null, problem };
  }
}

/**
 * A metadata value as JSON has it: integers beyond 2^53 and numbers that JSON lacks as text;
 * arrays and texts over the limits as `{length, first}`.
 */
function describeValue(value: MetadataValue): unknown {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (typeof value === "boolean") return value;
  if (typeof value === "string") {
    const { textLen } = metadataLimits;
    if (value.length <= textLen) return value;
    return { length: value.length, first: value.slice(0, textLen) };
  }
  const { items, shownItems } = metadataLimits;
  const { length } = value;
  if (length <= items) return firstItems(value, length);
  return { length, first: firstItems(value, shownItems) };
}

type ArrayValue = Exclude<MetadataValue, number | bigint | boolean | string>;

function firstItems(value: ArrayValue, count: number): unknown[] {
  const at = (index: number) =>
    isStringArray(value)
      ? (value as StringArray).at(index)
      : (value as ArrayLike<MetadataValue>)[index]!;
  return Array.from({ length: count }, (_, index) => describeValue(at(index)));
}
