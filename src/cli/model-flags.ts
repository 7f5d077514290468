// The flags that say which model to load and how; shared by every command that loads one.
import { existsSync, statSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import { parseAdapters } from "../engine/adapter-choice.ts";
import { memoryNodes, parseNumberList } from "../engine/machine.ts";
import {
  defaultModelOptions,
  type LoadMode,
  loadModes,
  type ModelOptions,
} from "../engine/options.ts";
import { type KvType, kvTypes } from "../plan/ops.ts";
import { locateModel } from "../store/locate.ts";
import { ModelStore } from "../store/store.ts";
import { startsAsGguf } from "../weights/gguf.ts";
import { builtInModel } from "./built-in-model.ts";
import type { Flags, FlagValues, Positional } from "./flags.ts";
import { ropeFlags, ropeOptions } from "./rope-flags.ts";
import { warn } from "./terminal.ts";

export const requiredModel: Positional = {
  name: "MODEL",
  description: "a .gguf file, a Hugging Face folder, a stored name, or hf:user/repo[:QUANT]",
  required: true,
  elsewhere: ["model", "m"],
};

export const modelPositional: Positional = {
  ...requiredModel,
  description: `${requiredModel.description}; default: the built-in model`,
  required: false,
};

export const modelFlags: Flags = {
  backend: {
    kind: "text",
    placeholder: "NAME",
    description: "where to compute: auto, cpu or reference",
    elsewhere: ["n-gpu-layers", "gpu-layers", "ngl"],
    default: "auto",
  },
  threads: {
    kind: "number",
    placeholder: "N",
    short: "t",
    description: "CPU threads; default: one per core, at most one per 4 MB of weights",
  },
  ctx: {
    kind: "number",
    placeholder: "N",
    short: "c",
    description: "context length in tokens; default: the model's, at most 8192, as memory allows",
    elsewhere: ["ctx-size"],
  },
  "kv-type": {
    kind: "text",
    choices: kvTypes,
    description:
      "storage type of the KV cache; default: f32 for F32 weights, f16 for F16 and Q8_0, else bf16",
  },
  "kv-type-k": {
    kind: "text",
    choices: kvTypes,
    description: "the same for keys alone",
    elsewhere: ["cache-type-k", "ctk"],
  },
  "kv-type-v": {
    kind: "text",
    choices: kvTypes,
    description: "the same for values alone",
    elsewhere: ["cache-type-v", "ctv"],
  },
  "sliding-window": {
    kind: "text",
    placeholder: "auto|N|off",
    description: "attention window in tokens; auto: as the architecture's reference applies it",
    default: "auto",
  },
  ...ropeFlags,
  lora: {
    kind: "list",
    placeholder: "FILE[=SCALE]",
    description: "LoRA adapter (.gguf or PEFT folder) to add to the weights; repeatable",
  },
  load: {
    kind: "text",
    choices: loadModes,
    description: "weights: lazy: mapped, at first use; auto: mapped, at load; eager: copied",
    default: "auto",
  },
  quantize: {
    kind: "text",
    placeholder: "TYPE",
    description: "quantise while loading: q4_k_m, q8_0, …; from F32, F16 or BF16 weights",
  },
  tuning: {
    kind: "boolean",
    description: "tune to this machine once, while idle, and use that; no result changes",
    default: true,
  },
  mlock: {
    kind: "boolean",
    description: "lock the weights in memory; the system's limit must allow it (ulimit -l)",
    default: false,
  },
  numa: {
    kind: "boolean",
    description: "spread memory over the machine's memory nodes",
    default: false,
  },
  cpus: {
    kind: "text",
    placeholder: "LIST",
    description: "pin one thread to each of these CPUs, e.g. 0-3,8; default: not pinned",
  },
  cpu: {
    kind: "text",
    placeholder: "VARIANT",
    description: "force a CPU variant, e.g. v3; see `tinfer doctor`",
  },
};

/** The file that a MODEL argument means; without one, the built-in model. */
export function modelPath(argument: string | undefined): string {
  if (argument === undefined) return builtInModel();
  // A variable that is not set, more likely than the wish for another model.
  if (argument === "") {
    throw new TinferError("usage", "MODEL is empty", {
      hint: "give a file, a folder or a stored name (`tinfer ls` lists them)",
    });
  }
  if (existsSync(argument)) return argument;
  return locateModel(argument, new ModelStore());
}

/** Whether an argument that may be a text or MODEL is the latter; reads from no pipe. */
export function namesModel(argument: string): boolean {
  const stat = statSync(argument, { throwIfNoEntry: false });
  if (stat !== undefined) return stat.isDirectory() || (stat.isFile() && startsAsGguf(argument));
  try {
    return new ModelStore().find(argument) !== undefined;
  } catch {
    return false; // Nothing that could be a name.
  }
}

export function modelOptions(values: FlagValues, maxSequences = 1): ModelOptions {
  const kvType = values.text("kv-type") as KvType | undefined;
  return {
    ...defaultModelOptions,
    backend: values.text("backend") ?? "auto",
    numThreads: values.number("threads"),
    contextLen: values.declares("ctx") ? values.number("ctx") : undefined,
    maxSequences,
    kvTypeK: (values.text("kv-type-k") as KvType | undefined) ?? kvType,
    kvTypeV: (values.text("kv-type-v") as KvType | undefined) ?? kvType,
    slidingWindow: slidingWindow(values.text("sliding-window") ?? "auto"),
    rope: ropeOptions(values),
    adapters: parseAdapters(values.list("lora")),
    load: values.text("load") as LoadMode,
    quantize: values.text("quantize"),
    lock: values.boolean("mlock"),
    numa: spreadsMemory(values),
    cpus: cpuList(values.text("cpus")),
    tuning: values.boolean("tuning"),
    cpuVariant: values.text("cpu"),
  };
}

function spreadsMemory(values: FlagValues): boolean {
  if (!values.boolean("numa")) return false;
  if (memoryNodes().length > 1) return true;
  warn("--numa changes nothing here: the machine has one memory node");
  return false;
}

function cpuList(text: string | undefined): number[] | undefined {
  if (text === undefined) return undefined;
  if (/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(text)) return parseNumberList(text);
  throw new TinferError("usage", `--cpus is '${text}'`, { hint: "give a list such as 0-3,8" });
}

function slidingWindow(text: string): "auto" | "off" | number {
  if (text === "auto" || text === "off") return text;
  const length = Number(text);
  if (Number.isInteger(length) && length > 0) return length;
  throw new TinferError("usage", `--sliding-window is '${text}'`, {
    hint: "give auto, off or a number of tokens",
  });
}
