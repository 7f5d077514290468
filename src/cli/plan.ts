// `tinfer plan`: the memory a model will take, to the byte, before any of it is taken.
import { AdapterSet } from "../engine/adapter-set.ts";
import { trainedText } from "../engine/context-limits.ts";
import { availableMemoryBytes } from "../engine/machine.ts";
import { ModelFile } from "../engine/model-file.ts";
import { planModel, positionLimit } from "../engine/model-plan.ts";
import type { ModelOptions } from "../engine/options.ts";
import { stretchOf } from "../models/rope.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { countParameters, countWeightBytes } from "./model-description.ts";
import { modelFlags, modelOptions, modelPath, modelPositional } from "./model-flags.ts";
import { warnOfLongContext } from "./open-engine.ts";
import { formatTable } from "./table.ts";
import { bold, dim, formatBytes, out, outJson } from "./terminal.ts";

/** Bytes of one device by class; `total` is their sum. */
interface DevicePlan {
  readonly name: string;
  /** As the file has them. */
  readonly weights: number;
  /** Weights made at load. */
  readonly derived: number;
  /** Made by the model code. */
  readonly tables: number;
  readonly kv: number;
  readonly arena: number;
  readonly scratch: number;
  readonly total: number;
}

export interface ModelMemory {
  readonly devices: readonly DevicePlan[];
  /** Tokens that one sequence may have. */
  readonly maxContextLen: number;
  /** Tokens that the model was trained for, and what its rope scaling makes of them. */
  readonly trainedContextLen: number;
  readonly scaledContextLen: number;
  /** How far its rope is stretched; 1 = not at all. */
  readonly ropeFactor: number;
  /** Positions that it has embeddings for; undefined where they are computed. */
  readonly positionLimit: number | undefined;
  readonly kvBlocks: number;
  /** Weights of the file, and those that one token passes through: some of the experts. */
  readonly parameters: { readonly total: number; readonly active: number };
  /** Memory that is free now, pages of files included. */
  readonly availableBytes: number;
  /** False: not all weights can be in memory at once. */
  readonly weightsFit: boolean;
  /** Weights that one token reads. */
  readonly weightBytesPerToken: number;
}

export const plan: Command = {
  name: "plan",
  summary: "The memory that a model will take, to the byte, per device and class.",
  positionals: [modelPositional],
  flags: {
    ...modelFlags,
    parallel: {
      kind: "number",
      placeholder: "N",
      description: "sequences that run at the same time",
      default: 1,
    },
    json: { kind: "boolean", description: "one JSON document, in bytes", default: false },
  },
  examples: [
    ["tinfer plan model.gguf", "weights, KV cache, activations and scratch"],
    ["tinfer plan model.gguf --ctx 32768 --kv-type q8_0", "with a long context, KV in 8 bits"],
    ["tinfer plan model.gguf --parallel 16 --json", "for a server, for scripts"],
  ],
  run: planCommand,
};

/** What loading the model with these options takes; the loader takes exactly this. */
function measureModel(path: string, options: ModelOptions): ModelMemory {
  using file = new ModelFile(path, options.rope, options.quantize);
  using adapterSet = new AdapterSet(options.adapters, file);
  const { adapters } = adapterSet;
  const availableBytes = availableMemoryBytes();
  const planned = planModel(file, file.outputs, options, { adapters });
  const { memoryPlan, plan: program } = planned;
  const { kvBytes: kv, arenaBytes: arena, scratchBytes: scratch } = memoryPlan.memory;
  const weights = planned.weights.fileBytes + adapterSet.mappedBytes;
  const derived = planned.weights.derivedBytes;
  const tables = memoryPlan.memory.tableBytes;
  const total = weights + derived + tables + kv + arena + scratch;
  return {
    availableBytes,
    weightsFit: total <= availableBytes,
    weightBytesPerToken: countWeightBytes(file.header, file.config.architecture).active,
    devices: [{ name: "cpu", weights, derived, tables, kv, arena, scratch, total }],
    maxContextLen: memoryPlan.maxContextLen,
    trainedContextLen: file.config.contextLen,
    scaledContextLen: file.config.scaledContextLen,
    kvBlocks: memoryPlan.limits.numBlocks,
    ropeFactor: stretchOf(file.config.ropeScaling),
    positionLimit: positionLimit(program),
    parameters: countParameters(file.header, file.config.architecture),
  };
}

async function planCommand(values: FlagValues): Promise<void> {
  const options = modelOptions(values, values.number("parallel")!);
  const memory = measureModel(modelPath(values.positionals[0]), options);
  if (options.contextLen !== undefined) warnOfLongContext(memory);
  if (values.boolean("json")) outJson(memory);
  else printPlan(memory);
}

const classes = [
  ["weights", "mapped from the file and shared with the page cache; with --load eager a copy"],
  ["derived", "weights made at load, which no file holds as they are used"],
  ["tables", "made by the model code: rotary frequencies, absorbed matrices, adapters of folders"],
  ["kv", "keys and values of the context"],
  ["arena", "activations of one step"],
  ["scratch", "working memory of the threads"],
  ["total", ""],
] as const;

/** Loading works all the same; what it costs is for the reader to know before. */
function tooLarge({ devices, availableBytes, weightBytesPerToken }: ModelMemory): string {
  const [needed, available] = [devices[0]!.total, availableBytes].map(formatBytes);
  const perToken = formatBytes(weightBytesPerToken);
  return (
    `${needed} are more than the ${available} of memory that are free: weights are read from ` +
    `the file as they are used, ${perToken} a token, as far as they are not in memory yet`
  );
}

function printPlan(memory: ModelMemory): void {
  const { devices, maxContextLen, kvBlocks, parameters } = memory;
  for (const device of devices) {
    out(bold(device.name));
    const texts = classes.map(([name]) => device[name].toLocaleString("en-US"));
    const width = Math.max(...texts.map((text) => text.length));
    const rows = classes.map(([name, meaning], index) => {
      const size = formatBytes(device[name]);
      return [name, `${texts[index]!.padStart(width)} B`, size, dim(meaning)];
    });
    for (const line of formatTable(rows)) out(line);
  }
  out(`context ${maxContextLen} tokens per sequence, ${kvBlocks} KV blocks in all`);
  out(trainedText(memory));
  const { total, active } = parameters;
  const part = active === total ? "" : `, ${active.toLocaleString("en-US")} active per token`;
  out(`parameters ${total.toLocaleString("en-US")}${part}`);
  if (!memory.weightsFit) out(tooLarge(memory));
}
