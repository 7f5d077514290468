// LoRA adapters as GGUF files: checks what the header says and pairs the factors of each tensor.
// How they enter a model is `plan/adapters.ts`.
import { TinferError } from "../core/errors.ts";
import type { GgufFile, TensorInfo } from "./gguf.ts";
import { getNumber, getString } from "./metadata.ts";

/** The two factors of one tensor of the model. */
export interface FactorPair {
  /** `[rank, cols]`; of the token embedding `[rows, rank]`. */
  readonly a: TensorInfo;
  /** `[rows, rank]`; of the token embedding `[cols, rank]`. */
  readonly b: TensorInfo;
}

export interface LoraHeader {
  /** Of the model that it was made for. */
  readonly architecture: string;
  /** The update's weight is alpha / rank; 0: it is 1. */
  readonly alpha: number;
  /** By the name of the model's tensor. */
  readonly pairs: ReadonlyMap<string, FactorPair>;
}

const suffixes = { a: ".lora_a", b: ".lora_b" } as const;

/** Throws where the file, which is given as a model, is an adapter. */
export function requireNoAdapter({ paths, metadata }: Pick<GgufFile, "paths" | "metadata">): void {
  if (metadata.get("general.type") !== "adapter") return;
  throw new TinferError("usage", `${paths[0]} is an adapter, not a model`, {
    hint: `give the model that it was made for, and --lora ${paths[0]}`,
  });
}

/** Reads an adapter out of an open GGUF file; throws where it is none, or not one for here. */
export function readLora({ paths, metadata, tensors }: GgufFile): LoraHeader {
  const path = paths[0]!;
  const type = getString(metadata, "general.type");
  if (type !== "adapter") {
    const found = type === undefined ? "does not say that it is one" : `is of type '${type}'`;
    throw new TinferError("usage", `${path} is no adapter: it ${found} (general.type)`, {
      hint: "--lora takes a LoRA adapter; a model goes in place of MODEL",
    });
  }
  const kind = getString(metadata, "adapter.type");
  if (kind !== "lora") {
    throw new TinferError("unsupported", `${path}: adapters of type '${kind}' are not supported`, {
      hint: "LoRA adapters are (adapter.type lora)",
    });
  }
  if (metadata.has("adapter.alora.invocation_tokens")) {
    const message = `${path} is an adapter that begins at certain tokens (aLoRA)`;
    throw new TinferError("unsupported", `${message}, which is not supported`, {
      hint: "use a LoRA adapter that applies from the first token on",
    });
  }
  const architecture = getString(metadata, "general.architecture");
  if (architecture === undefined) throw invalid(path, "it does not say for which architecture");
  const alpha = getNumber(metadata, "adapter.lora.alpha") ?? 0;
  if (!Number.isFinite(alpha)) throw invalid(path, `its alpha is ${alpha}`);
  return { architecture, alpha, pairs: pairFactors(path, tensors) };
}

function pairFactors(
  path: string,
  tensors: ReadonlyMap<string, TensorInfo>,
): Map<string, FactorPair> {
  const pairs = new Map<string, FactorPair>();
  for (const [name, tensor] of tensors) {
    if (name.endsWith(suffixes.b)) requireOther(path, tensors, name, suffixes.b, suffixes.a);
    else if (name.endsWith(suffixes.a)) {
      const b = requireOther(path, tensors, name, suffixes.a, suffixes.b);
      pairs.set(name.slice(0, -suffixes.a.length), { a: tensor, b });
    } else {
      throw new TinferError("unsupported", `${path}: '${name}' is not a factor of an update`, {
        hint: "tensors that replace the model's, norms for example, are not supported: merge this adapter into the model with the tool that made it",
      });
    }
  }
  if (pairs.size === 0) throw invalid(path, "it changes no tensor");
  return pairs;
}

function requireOther(
  path: string,
  tensors: ReadonlyMap<string, TensorInfo>,
  name: string,
  own: string,
  other: string,
): TensorInfo {
  const wanted = name.slice(0, -own.length) + other;
  const found = tensors.get(wanted);
  if (found === undefined) throw invalid(path, `'${name}' is there without '${wanted}'`);
  return found;
}

function invalid(path: string, what: string): TinferError {
  return new TinferError("invalidFile", `${path} is no complete adapter: ${what}`, {
    hint: "convert or download it again",
  });
}
