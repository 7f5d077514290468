// The flags that say what `tinfer quantize` makes of a model, in typed form.
import { TinferError } from "../core/errors.ts";
import { defaultNumThreads, maxThreads } from "../engine/machine.ts";
import { findType } from "../weights/quantize-mix.ts";
import type { TypeOptions, TypeOverride } from "../weights/quantize-types.ts";
import type { SplitLimit } from "../weights/split-model.ts";
import type { Flags, FlagValues } from "./flags.ts";

export const splitFlags: Flags = {
  "split-max-size": {
    kind: "text",
    placeholder: "N(M|G)",
    description:
      "several files of at most this size, e.g. 2G; a larger tensor has a file of its own",
  },
  "split-max-tensors": {
    kind: "number",
    placeholder: "N",
    description: "several files of at most so many tensors",
  },
};

export const typeFlags: Flags = {
  imatrix: {
    kind: "text",
    placeholder: "FILE",
    description: "importance matrix, GGUF or the older .dat form: which columns matter most",
  },
  "tensor-type": {
    kind: "list",
    placeholder: "PATTERN=TYPE",
    description: "tensors whose name has the pattern (a regular expression) get this type",
  },
  "output-tensor-type": {
    kind: "text",
    placeholder: "TYPE",
    description: "type of output.weight",
  },
  "token-embedding-type": {
    kind: "text",
    placeholder: "TYPE",
    description: "type of the token embedding",
  },
  pure: {
    kind: "boolean",
    description: "one type for all matrices instead of the mix",
    default: false,
  },
};

export function typeOptions(values: FlagValues): Omit<TypeOptions, "mix" | "hasImportance"> {
  const type = (flag: string) => {
    const name = values.text(flag);
    return name === undefined ? undefined : findType(name);
  };
  return {
    pure: values.boolean("pure"),
    outputType: type("output-tensor-type"),
    tokenEmbeddingType: type("token-embedding-type"),
    overrides: values.list("tensor-type").map(parseOverride),
  };
}

function parseOverride(text: string): TypeOverride {
  const cut = text.lastIndexOf("=");
  if (cut <= 0) {
    throw new TinferError("usage", `--tensor-type is '${text}', wanted PATTERN=TYPE`, {
      hint: "for example --tensor-type 'attn_v=q8_0'",
    });
  }
  try {
    return { pattern: new RegExp(text.slice(0, cut)), type: findType(text.slice(cut + 1)) };
  } catch (cause) {
    if (cause instanceof TinferError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TinferError("usage", `--tensor-type '${text}': ${reason}`, { cause });
  }
}

export function splitLimit(values: FlagValues): SplitLimit {
  const size = values.text("split-max-size");
  const maxTensors = values.number("split-max-tensors");
  if (size !== undefined && maxTensors !== undefined) {
    throw new TinferError("usage", "give either --split-max-size or --split-max-tensors");
  }
  if (maxTensors !== undefined && !(Number.isInteger(maxTensors) && maxTensors > 0)) {
    const text = `--split-max-tensors is ${maxTensors}, wanted a whole number above 0`;
    throw new TinferError("usage", text);
  }
  return { maxBytes: size === undefined ? undefined : parseSize(size), maxTensors };
}

const unitBytes = { k: 1e3, m: 1e6, g: 1e9 } as const;

function parseSize(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)([kmg])$/i.exec(text) ?? [];
  const bytes = Number(number) * unitBytes[(unit ?? "").toLowerCase() as keyof typeof unitBytes];
  if (bytes >= 1) return Math.floor(bytes);
  throw new TinferError("usage", `--split-max-size is '${text}'`, {
    hint: "give a number with M or G, such as 2G",
  });
}

export const threadsFlag: Flags = {
  threads: {
    kind: "number",
    placeholder: "N",
    short: "t",
    description: "CPU threads; default: one per core",
  },
};

export function threadCount(values: FlagValues): number {
  const count = values.number("threads") ?? defaultNumThreads();
  if (Number.isInteger(count) && count > 0 && count <= maxThreads) return count;
  const text = `--threads is ${count}, wanted a whole number from 1 to ${maxThreads}`;
  throw new TinferError("usage", text);
}
