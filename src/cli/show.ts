// `tinfer show`: what is in a model file, without loading it.
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import {
  describeModel,
  type ModelDescription,
  metadataLimits,
  type TokenizerDescription,
} from "./model-description.ts";
import { modelPath, modelPositional } from "./model-flags.ts";
import { ropeFlags, ropeOptions } from "./rope-flags.ts";
import { formatTable, oneLine } from "./table.ts";
import { bold, dim, formatBytes, out, outJson } from "./terminal.ts";

/** Metadata text in the overview; --json has all of it. */
const maxValueLen = 72;

export const show: Command = {
  name: "show",
  summary: "What is in a model file: metadata, parameters, tensors, tokenizer.",
  positionals: [modelPositional],
  flags: {
    ...ropeFlags,
    json: {
      kind: "boolean",
      description:
        "one JSON document; metadata arrays of more than " +
        `${metadataLimits.items} items are {length, first}`,
      default: false,
    },
  },
  examples: [
    ["tinfer show model.gguf", "an overview for reading"],
    ["tinfer show model.gguf --json | jq .parameters", "total and active parameters"],
    ["tinfer show model.gguf --rope-scaling yarn --rope-scale 4", "the context with scaling"],
    ["tinfer show vocab.gguf", "files without weights work too"],
  ],
  run: showCommand,
};

async function showCommand(values: FlagValues): Promise<void> {
  const model = describeModel(modelPath(values.positionals[0]), ropeOptions(values));
  if (values.boolean("json")) outJson(model);
  else printModel(model);
}

const grouped = (count: number) => count.toLocaleString("en-US");

function describeTokenizer(tokenizer: TokenizerDescription | null): string {
  if (tokenizer === null) return "none";
  const { kind, vocabSize, problem } = tokenizer;
  const size = `${oneLine(kind, maxValueLen)}, ${grouped(vocabSize)} tokens`;
  return problem === null ? size : `${size} (cannot be used: ${oneLine(problem, 300)})`;
}

function describeContext({ contextLen, scaledContextLen }: ModelDescription): string {
  if (contextLen === null) return "–";
  const trained = `${grouped(contextLen)} tokens`;
  const isScaled = scaledContextLen !== null && scaledContextLen !== contextLen;
  return isScaled ? `${trained}, ${grouped(scaledContextLen)} with the rope scaling` : trained;
}

function describeLoading({ loading }: ModelDescription): string {
  const { mappedBytes, derivedBytes } = loading;
  const made = derivedBytes === 0 ? "" : `, ${formatBytes(derivedBytes)} made at load`;
  return `${formatBytes(mappedBytes)} used in place${made}`;
}

function printModel(model: ModelDescription): void {
  const { parameters, architecture, files, types } = model;
  const active =
    parameters.active === parameters.total ? "" : `, ${grouped(parameters.active)} active`;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const shards = files.length === 1 ? "" : ` in ${files.length} files`;
  const unknown = model.architectureKnown ? "" : " (not known to this tinfer: it cannot be run)";
  const typeList = types.map(({ type, tensors, bytes: size }) => {
    return `${type} ${formatBytes(size)} in ${tensors}`;
  });
  const rows = [
    ["file", `${model.path} (${formatBytes(bytes)}${shards}, ${model.format})`],
    ["name", oneLine(model.name ?? "–", maxValueLen)],
    ["architecture", `${oneLine(architecture ?? "–", maxValueLen)}${unknown}`],
    ["parameters", `${grouped(parameters.total)}${active}`],
    ["context", describeContext(model)],
    ["tokenizer", describeTokenizer(model.tokenizer)],
    ["template", model.chatTemplate ? "yes" : "no"],
    ["types", typeList.join(", ") || "no tensors"],
    ["loading", describeLoading(model)],
  ];
  const lines = formatTable(rows.map(([name, text]) => [dim(name!), text!]));
  const metadata = Object.entries(model.metadata);
  lines.push("", bold(`Metadata (${metadata.length})`));
  lines.push(
    ...formatTable(
      metadata.map(([key, value]) => [oneLine(key, maxValueLen), dim(describeValue(value))]),
    ),
  );
  lines.push("", bold(`Tensors (${model.tensors.length})`));
  const tensors = model.tensors.map(({ name, type, shape, bytes: size }) => [
    oneLine(name, maxValueLen),
    type,
    `[${shape.join(", ")}]`,
    formatBytes(size),
  ]);
  lines.push(...formatTable(tensors));
  for (const line of lines) out(line);
}

/** A value on one line: arrays as their first items and length. */
function describeValue(value: unknown): string {
  if (typeof value === "string") return oneLine(value, maxValueLen);
  // Metadata is in f32: seven digits say all that there is.
  if (typeof value === "number") return String(roundFloat(value));
  if (Array.isArray(value)) return oneLine(JSON.stringify(value), maxValueLen);
  if (typeof value !== "object" || value === null) return String(value);
  const { length, first } = value as { length: number; first: unknown };
  const shown = typeof first === "string" ? first : JSON.stringify(first);
  return `${length} items: ${oneLine(shown, maxValueLen)}`;
}

function roundFloat(value: number): number {
  return Number.isInteger(value) ? value : Number(value.toPrecision(7));
}
