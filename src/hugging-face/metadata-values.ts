// Collects GGUF metadata with the exact types that GGUF files have, for both uses: read by
// families and tokenizers, and written by `convert`.
import { type GgufNumberType, type GgufValue, ggufNumbers } from "../weights/gguf-types.ts";
import type { StringArray } from "../weights/metadata.ts";

export class MetadataValues {
  readonly values = new Map<string, GgufValue>();
  /** GGUF architecture, which begins the keys of hyperparameters. */
  readonly architecture: string;

  constructor(architecture: string) {
    this.architecture = architecture;
  }

  #set(key: string, value: GgufValue): void {
    // Keys of hyperparameters are given without their architecture.
    const isWhole = /^(general|tokenizer)\./.test(key);
    this.values.set(isWhole ? key : `${this.architecture}.${key}`, value);
  }

  /** Nothing is written for undefined, here and below. */
  u32(key: string, value: number | undefined): void {
    if (value !== undefined) this.#set(key, { type: "u32", value });
  }

  f32(key: string, value: number | undefined): void {
    if (value !== undefined) this.#set(key, { type: "f32", value: Math.fround(value) });
  }

  bool(key: string, value: boolean | undefined): void {
    if (value !== undefined) this.#set(key, { type: "bool", value });
  }

  text(key: string, value: string | undefined): void {
    if (value !== undefined) this.#set(key, { type: "string", value });
  }

  numbers(key: string, of: GgufNumberType, value: readonly number[]): void {
    const { bytes, set, toArray } = ggufNumbers[of];
    const view = new DataView(new ArrayBuffer(value.length * bytes));
    value.forEach((element, index) => {
      set(view, index * bytes, element);
    });
    this.#set(key, { type: "array", of, value: toArray(view.buffer) });
  }

  bools(key: string, value: readonly boolean[]): void {
    this.#set(key, { type: "array", of: "bool", value });
  }

  texts(key: string, value: readonly string[]): void {
    this.#set(key, { type: "array", of: "string", value: new TextList(value) });
  }

  has(key: string): boolean {
    return this.values.has(`${this.architecture}.${key}`);
  }

  delete(key: string): void {
    this.values.delete(`${this.architecture}.${key}`);
  }
}

/** Texts that are there already. */
class TextList implements StringArray {
  readonly length: number;
  readonly #texts: readonly string[];

  constructor(texts: readonly string[]) {
    this.#texts = texts;
    this.length = texts.length;
  }

  at(index: number): string {
    return this.#texts[index]!;
  }

  bytesAt(index: number): Uint8Array {
    return Buffer.from(this.#texts[index]!);
  }

  toArray(): string[] {
    return [...this.#texts];
  }
}
