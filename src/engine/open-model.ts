// Opens what a MODEL argument means on disk, a GGUF file or a model folder, without its weights.
import { statSync } from "node:fs";
import { openFolder } from "../hugging-face/folder.ts";
import { readMixFacts } from "../models/mix-facts.ts";
import { readGguf } from "../weights/gguf.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import { isSourceType } from "../weights/quantize.ts";
import { findMix } from "../weights/quantize-mix.ts";
import { chooseTypes } from "../weights/quantize-types.ts";
import { retyped, withoutFloat8 } from "../weights/retype.ts";
import { withStackedExperts } from "../weights/stack-experts.ts";

export function isModelFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

export function openModel(path: string): ModelHeader {
  return isModelFolder(path) ? openFolder(path) : readGguf(path);
}

/** The header as a GGUF file is written from it. */
export function openForWriting(path: string): ModelHeader {
  const header = openModel(path);
  return isModelFolder(path) ? withStackedExperts(withoutFloat8(header)) : header;
}

/** Weights up to this stay in a processor's cache, where a wider type costs no time. */
const mostWidenedBytes = 64 * 2 ** 20;

export function openForRunning(path: string, quantize?: string): ModelHeader {
  return asLoaded(openModel(path), isModelFolder(path), quantize);
}

/**
 * The header as it is loaded: its matrices as the mix `quantize` says. Without one, folders of small
 * models become F32 (GGUF files are as their maker wants them): products with 16-bit weights round
 * activations to 16 bits as well.
 */
export function asLoaded(own: ModelHeader, isFolder: boolean, quantize?: string): ModelHeader {
  if (quantize !== undefined) {
    const header = withoutFloat8(own);
    const mix = findMix(quantize);
    const types = chooseTypes([...header.tensors.values()], readMixFacts(header.metadata), { mix });
    return retyped(header, ({ name }) => types.get(name)!.type);
  }
  if (!isFolder) return own;
  const tensors = [...own.tensors.values()];
  const elements = tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  if (elements * 4 > mostWidenedBytes) return own;
  // Blocks of 4 bits stay, as their maker wants them too, and 8-bit floats: these round nothing.
  return retyped(own, ({ type }) => (isSourceType(type) ? "f32" : type));
}
