// The JSON files of a model folder, and typed looks into them: a wrong type is an error that names
// file and key. `null` counts as absent, as these files use it.
import { existsSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { TinferError } from "../core/errors.ts";

/** Bytes of one JSON file: the largest tokenizer.json published has 35 MB. */
const maxBytes = 256 * 2 ** 20;

export type JsonValue = string | number | boolean | null | JsonValue[] | JsonFields;
export interface JsonFields {
  readonly [key: string]: JsonValue | undefined;
}

export function isFields(value: unknown): value is JsonFields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A text file of the folder, or undefined when there is none. */
export function readFolderText(folder: string, name: string): string | undefined {
  const path = join(folder, name);
  if (!existsSync(path)) return undefined;
  const { size } = statSync(path);
  if (size > maxBytes) {
    throw new TinferError("invalidFile", `${path}: ${size} bytes, at most ${maxBytes} are read`, {
      hint: "this is no file of a model; download it again",
    });
  }
  return readFileSync(path, "utf8");
}

/** The object in a JSON file of the folder, or undefined when there is no such file. */
export function readFolderJson(folder: string, name: string): JsonObject | undefined {
  const value = readValue(folder, name);
  if (value === undefined) return undefined;
  if (isFields(value)) return new JsonObject(join(folder, name), value);
  throw wrongForm(join(folder, name), "object");
}

/** The same for a file that holds an array. */
export function readFolderList(folder: string, name: string): readonly JsonValue[] | undefined {
  const value = readValue(folder, name);
  if (value === undefined || Array.isArray(value)) return value;
  throw wrongForm(join(folder, name), "array");
}

function readValue(folder: string, name: string): JsonValue | undefined {
  const text = readFolderText(folder, name);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as JsonValue;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TinferError("invalidFile", `${join(folder, name)} is not JSON: ${reason}`, {
      hint: "the download is incomplete or damaged: download the file again",
    });
  }
}

function wrongForm(path: string, wanted: string): TinferError {
  return new TinferError("invalidFile", `${path} is not a JSON ${wanted}`, {
    hint: "download the file again",
  });
}

export class JsonObject {
  /** Path of the file, for errors. */
  readonly path: string;
  readonly fields: JsonFields;
  readonly #prefix: string;

  constructor(path: string, fields: JsonFields, prefix = "") {
    this.path = path;
    this.fields = fields;
    this.#prefix = prefix;
  }

  invalid(key: string, wanted: string): TinferError {
    const shown = JSON.stringify(this.get(key))?.slice(0, 80) ?? "missing";
    const where = `${basename(this.path)}: '${this.#prefix}${key}'`;
    return new TinferError("invalidFile", `${where} is ${shown}, wanted ${wanted}`, {
      hint: `check ${this.path}, or download it again`,
    });
  }

  has(key: string): boolean {
    return this.get(key) !== undefined;
  }

  get(key: string): JsonValue | undefined {
    const value = Object.hasOwn(this.fields, key) ? this.fields[key] : undefined;
    return value === null ? undefined : value;
  }

  /** The first of `keys` that is there. */
  number(...keys: readonly string[]): number | undefined {
    const key = keys.find((name) => this.has(name));
    if (key === undefined) return undefined;
    const value = this.get(key);
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw this.invalid(key, "a number");
  }

  requiredNumber(...keys: readonly string[]): number {
    const value = this.number(...keys);
    if (value === undefined) throw this.invalid(keys[0]!, "a number");
    return value;
  }

  /** A whole number as GGUF's u32 can hold it. */
  count(...keys: readonly string[]): number | undefined {
    const value = this.number(...keys);
    if (value === undefined || (Number.isInteger(value) && value >= 0 && value < 2 ** 32)) {
      return value;
    }
    throw this.invalid(keys.find((name) => this.has(name))!, "a whole number below 2^32");
  }

  requiredCount(...keys: readonly string[]): number {
    const value = this.count(...keys);
    if (value === undefined) throw this.invalid(keys[0]!, "a whole number");
    return value;
  }

  text(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "string") return value;
    throw this.invalid(key, "a text");
  }

  flag(key: string): boolean | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.invalid(key, "true or false");
  }

  list(key: string): readonly JsonValue[] | undefined {
    const value = this.get(key);
    if (value === undefined || Array.isArray(value)) return value;
    throw this.invalid(key, "an array");
  }

  numbers(key: string): number[] | undefined {
    const values = this.list(key);
    if (values?.every((value) => typeof value === "number") === false) {
      throw this.invalid(key, "an array of numbers");
    }
    return values as number[] | undefined;
  }

  object(key: string): JsonObject | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (!isFields(value)) throw this.invalid(key, "an object");
    return new JsonObject(this.path, value, `${this.#prefix}${key}.`);
  }

  /** An object with the fields of `inner` over these. */
  with(inner: JsonObject): JsonObject {
    return new JsonObject(this.path, { ...this.fields, ...inner.fields });
  }
}
