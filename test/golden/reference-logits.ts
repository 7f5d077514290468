// Compares logits that tinfer computes with stored reference logits.
import { readFileSync } from "node:fs";
import { computeRows } from "../../src/engine/logits.ts";
import { defaultModelOptions, type ModelOptions } from "../../src/engine/options.ts";

export function readFloats(path: string): Float32Array {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

/** sum((a - b)²) / sum(b²) */
export function nmse(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} values against ${b.length}`);
  let error = 0;
  let power = 0;
  for (let i = 0; i < b.length; i++) {
    error += (a[i]! - b[i]!) ** 2;
    power += b[i]! ** 2;
  }
  return error / power;
}

/** Logits of all tokens `[tokenIds.length, vocabSize]` with an f32 KV cache. */
export function logitsOf(
  path: string,
  tokenIds: readonly number[],
  chunkLen: number,
  options: Partial<ModelOptions>,
): Float32Array {
  const all = { ...defaultModelOptions, kvTypeK: "f32", kvTypeV: "f32", ...options } as const;
  const chunks: Float32Array[] = [];
  for (const chunk of computeRows(path, all, Int32Array.from(tokenIds), "tokens", chunkLen)) {
    chunks.push(Float32Array.from(chunk.values));
  }
  const logits = new Float32Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    logits.set(chunk, at);
    at += chunk.length;
  }
  return logits;
}
