// Opens what a MODEL argument means on disk, a GGUF file or a model folder, without its weights.
import { statSync } from "node:fs";
import { openFolder } from "../hugging-face/folder.ts";
import { readGguf } from "../weights/gguf.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import { retyped } from "../weights/retype.ts";

export function isModelFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

export function openModel(path: string): ModelHeader {
  return isModelFolder(path) ? openFolder(path) : readGguf(path);
}

/** Weights up to this stay in a processor's cache, where a wider type costs no time. */
const mostWidenedBytes = 64 * 2 ** 20;

/**
 * The header as it is loaded. Folders of small models become F32 (GGUF files are as their maker
 * wants them): products with 16-bit weights round activations to 16 bits as well.
 */
export function openForRunning(path: string): ModelHeader {
  const header = openModel(path);
  if (!isModelFolder(path)) return header;
  let elements = 0;
  for (const { shape } of header.tensors.values()) elements += shape.reduce((a, b) => a * b, 1);
  return elements * 4 <= mostWidenedBytes ? retyped(header, () => "f32") : header;
}
