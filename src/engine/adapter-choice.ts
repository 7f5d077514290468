// Which adapters are wanted, and how much of each: what people write as FILE[=SCALE].
import { existsSync } from "node:fs";
import { basename, resolve } from "node:path";
import { TinferError } from "../core/errors.ts";

/** An adapter that is to be loaded. */
export interface AdapterChoice {
  /** What requests and messages call it; no two of a model's have the same. */
  readonly name: string;
  /** A .gguf file or a PEFT folder. */
  readonly path: string;
  readonly scale: number;
}

/** How much of a loaded adapter a request wants. */
export interface AdapterScale {
  readonly name: string;
  readonly scale: number;
}

/** Reads FILE[=SCALE] texts, names the adapters after their files. */
export function parseAdapters(texts: readonly string[]): AdapterChoice[] {
  const names = new Set<string>();
  return texts.map((text) => {
    const { path, scale } = parseAdapter(text);
    const stem = basename(path).replace(/\.gguf$/i, "");
    let name = stem;
    for (let count = 2; names.has(name); count++) name = `${stem}-${count}`;
    names.add(name);
    return { name, path: resolve(path), scale };
  });
}

function parseAdapter(text: string): { path: string; scale: number } {
  const cut = text.lastIndexOf("=");
  const path = text.slice(0, cut);
  // A file's own name may have an equals sign.
  if (cut < 0 || (existsSync(text) && !existsSync(path))) return { path: text, scale: 1 };
  const number = text.slice(cut + 1).trim();
  return { path, scale: checkedScale(number === "" ? Number.NaN : Number(number), text) };
}

/** Kernels compute with scales in 32 bits. */
export function isScale(scale: number): boolean {
  return Number.isFinite(Math.fround(scale));
}

/** `origin` says where the scale was given. */
function checkedScale(scale: number, origin: string): number {
  if (isScale(scale)) return scale;
  throw new TinferError("usage", `the scale of an adapter is not a number: ${origin}`, {
    hint: "write FILE or FILE=SCALE, e.g. style.gguf=0.5",
  });
}
