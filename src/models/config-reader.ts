// Reads one architecture's metadata keys, typed and within limits. What the keys mean is said in
// `model-config.ts`.
import { TinferError } from "../core/errors.ts";
import {
  getBoolean,
  getNumber,
  getNumbers,
  getString,
  type Metadata,
} from "../weights/metadata.ts";

/** Limits that keep a hostile file from asking for absurd plans. */
export const limits = {
  layers: 1024,
  width: 1 << 20,
  heads: 4096,
  contextLen: 1 << 28,
  /** As kernels/plan.zig has places for. */
  experts: 1024,
  vocabSize: 1 << 24,
} as const;

function invalid(key: string, value: unknown, wanted: string): TinferError {
  return new TinferError("invalidFile", `metadata key '${key}' is ${value}, wanted ${wanted}`, {
    hint: "the file is damaged or was written by a faulty converter; download or convert it again",
  });
}

export class ConfigReader {
  readonly #metadata: Metadata;
  readonly #architecture: string;

  constructor(metadata: Metadata, architecture: string) {
    this.#metadata = metadata;
    this.#architecture = architecture;
  }

  #key(suffix: string): string {
    return `${this.#architecture}.${suffix}`;
  }

  /** The error that a key's value is not as wanted. */
  invalid(suffix: string, value: unknown, wanted: string): TinferError {
    return invalid(this.#key(suffix), value, wanted);
  }

  float(suffix: string): number | undefined {
    const value = getNumber(this.#metadata, this.#key(suffix));
    if (value !== undefined && !Number.isFinite(value)) {
      throw invalid(this.#key(suffix), value, "a finite number");
    }
    return value;
  }

  text(suffix: string): string | undefined {
    return getString(this.#metadata, this.#key(suffix));
  }

  flag(suffix: string): boolean | undefined {
    return getBoolean(this.#metadata, this.#key(suffix));
  }

  /** A whole number in [least, most], or undefined when absent. */
  count(suffix: string, most: number, least = 1): number | undefined {
    return this.#checkCount(suffix, this.float(suffix), most, least);
  }

  #checkCount(suffix: string, value: number | undefined, most: number, least: number) {
    if (value === undefined) return undefined;
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw invalid(this.#key(suffix), value, `a whole number from ${least} to ${most}`);
  }

  requiredCount(suffix: string, most: number): number {
    const value = this.count(suffix, most);
    if (value !== undefined) return value;
    throw new TinferError("invalidFile", `metadata key '${this.#key(suffix)}' is missing`, {
      hint: "the file holds no complete model; is it a vocabulary or an adapter?",
    });
  }

  /** One number for all layers, or one per layer. */
  perLayer(suffix: string, numLayers: number, most: number): number[] | undefined {
    const value = this.#metadata.get(this.#key(suffix));
    if (!ArrayBuffer.isView(value)) {
      const count = this.count(suffix, most, 0);
      return count === undefined ? undefined : new Array<number>(numLayers).fill(count);
    }
    const numbers = Array.from(getNumbers(this.#metadata, this.#key(suffix))!, Number);
    if (numbers.length < numLayers) {
      throw invalid(this.#key(suffix), `an array of ${numbers.length}`, `${numLayers} numbers`);
    }
    return numbers.slice(0, numLayers).map((n) => this.#checkCount(suffix, n, most, 0)!);
  }

  /** A whole number, or an array with a flag per layer: booleans, or numbers that are 0 or not. */
  flagsOrCount(suffix: string, numLayers: number): number | readonly boolean[] | undefined {
    const key = this.#key(suffix);
    const value = this.#metadata.get(key);
    if (!Array.isArray(value) && !ArrayBuffer.isView(value)) {
      return this.count(suffix, limits.layers, 0);
    }
    const flags: readonly unknown[] = Array.isArray(value)
      ? value
      : Array.from(getNumbers(this.#metadata, key)!, Number).map((number) => number !== 0);
    if (flags.length < numLayers || flags.some((flag) => typeof flag !== "boolean")) {
      throw invalid(key, `an array of ${flags.length}`, `${numLayers} booleans`);
    }
    return flags.slice(0, numLayers) as boolean[];
  }

  /** Whether the key has an array whose first two numbers are positive. */
  hasNumbers(suffix: string): boolean {
    const numbers = getNumbers(this.#metadata, this.#key(suffix));
    return numbers !== undefined && numbers[0]! > 0 && numbers[1]! > 0;
  }
}
