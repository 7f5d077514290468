// Opens what a MODEL argument means on disk, a GGUF file or a model folder, without its weights.
import { statSync } from "node:fs";
import { openFolder } from "../hugging-face/folder.ts";
import { readMixFacts } from "../models/mix-facts.ts";
import { readGguf } from "../weights/gguf.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import { isSourceType } from "../weights/quantize.ts";
import { findMix } from "../weights/quantize-mix.ts";
import { chooseTypes } from "../weights/quantize-types.ts";
import { retyped } from "../weights/retype.ts";
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
  return isModelFolder(path) ? withStackedExperts(header) : header;
}

/** Weights up to this stay in a processor's cache, where a wider type costs no time. */
const mostWidenedBytes = 64 * 2 ** 20;

/**
 * The header as it is loaded: its matrices as the mix `quantize` says. Without one, folders of small
 * models become F32 (GGUF files are as their maker wants them): products with 16-bit weights round
 * activations to 16 bits as well.
 */
export function openForRunning(path: string, quantize?: string): ModelHeader {
  const header = openModel(path);
  const tensors = [...header.tensors.values()];
  if (quantize !== undefined) {
    const mix = findMix(quantize);
    const types = chooseTypes(tensors, readMixFacts(header.metadata), { mix });
    return retyped(header, ({ name }) => types.get(name)!.type);
  }
  if (!isModelFolder(path)) return header;
  const elements = tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  if (elements * 4 > mostWidenedBytes) return header;
  // Blocks of 4 bits stay: they are as their maker wants them too.
  return retyped(header, ({ type }) => (isSourceType(type) ? "f32" : type));
}
