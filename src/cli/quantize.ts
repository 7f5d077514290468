// `tinfer quantize`: a model in other weight types, as GGUF.
import { basename } from "node:path";
import { TinferError } from "../core/errors.ts";
import { openForWriting } from "../engine/open-model.ts";
import { readMixFacts } from "../models/mix-facts.ts";
import type { GgufValue } from "../weights/gguf-types.ts";
import { type ImportanceMatrix, readImportance } from "../weights/importance.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import { quantTypeInfo } from "../weights/quant-types.ts";
import { findMix, type Mix, mixNames } from "../weights/quantize-mix.ts";
import {
  type ChosenType,
  chooseTypes,
  needsImportance,
  staysAsItIs,
} from "../weights/quantize-types.ts";
import { type NewFile, type NewTensor, newFileBytes } from "../weights/rewrite-model.ts";
import { withoutSplit } from "../weights/split-model.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { modelPath } from "./model-flags.ts";
import {
  splitFlags,
  splitLimit,
  threadCount,
  threadsFlag,
  typeFlags,
  typeOptions,
} from "./quantize-flags.ts";
import { limitedFiles, reportRewrite, writeModel } from "./rewrite.ts";
import { formatTable } from "./table.ts";
import { formatBytes, out, outJson, say, warn } from "./terminal.ts";

export const quantize: Command = {
  name: "quantize",
  summary:
    "A model in other weight types, as GGUF; stopped, it goes on at the tensor that it was at.",
  positionals: [
    {
      name: "IN",
      description: "a .gguf file, a Hugging Face folder or a stored name",
      required: true,
    },
    { name: "OUT", description: "the file to write", required: true },
    { name: "TYPE", description: `${mixNames.join(", ")}, or copy`, required: true },
  ],
  flags: {
    ...typeFlags,
    "allow-requantize": {
      kind: "boolean",
      description: "also from weights that are quantised already: errors add up",
      default: false,
    },
    "dry-run": {
      kind: "boolean",
      description: "only say which type each tensor gets, and the size",
      default: false,
    },
    ...splitFlags,
    ...threadsFlag,
    json: { kind: "boolean", description: "the result as JSON", default: false },
  },
  examples: [
    ["tinfer quantize model-f16.gguf model-q4.gguf Q4_K_M", "the usual mix"],
    ["tinfer quantize in.gguf out.gguf IQ2_M --imatrix imatrix.gguf", "few bits, well placed"],
    ["tinfer quantize in.gguf out.gguf Q4_K_M --tensor-type 'attn_v=q8_0'", "one kind with more"],
    ["tinfer quantize in.gguf out.gguf Q8_0 --split-max-size 2G", "in files of at most 2 GB"],
  ],
  run: async (values) => quantizeCommand(values),
};

function quantizeCommand(values: FlagValues): void {
  const [inPath, outPath, typeName] = values.positionals as [string, string, string];
  const input = openForWriting(modelPath(inPath));
  const mix = typeName.toLowerCase() === "copy" ? undefined : findMix(typeName);
  const importancePath = values.text("imatrix");
  const importance = importancePath === undefined ? undefined : readImportance(importancePath);
  const types = newTypes(input, mix, importance, values);
  if (!values.boolean("dry-run")) checkRequantize(input, types, values.boolean("allow-requantize"));
  sayRefused(types);
  const tensors = newTensors(input, types, importance);
  if (mix !== undefined) warnWithoutImportance(tensors, mix);
  const metadata = newMetadata(input, mix, importance, importancePath);
  const files = limitedFiles({ path: outPath, metadata, tensors }, splitLimit(values));
  if (values.boolean("dry-run")) reportDryRun(files, values.boolean("json"));
  else {
    const report = writeModel(basename(outPath), input, files, threadCount(values));
    reportRewrite(report, values.boolean("json"));
  }
}

function newTypes(
  input: ModelHeader,
  mix: Mix | undefined,
  importance: ImportanceMatrix | undefined,
  values: FlagValues,
): Map<string, ChosenType> {
  const tensors = [...input.tensors.values()];
  if (tensors.length === 0) {
    throw new TinferError("unsupported", `${input.paths[0]} holds no weights`);
  }
  if (mix === undefined) {
    const idle = Object.keys(typeFlags).find(
      (name) => name !== "imatrix" && values.source(name) === "flag",
    );
    if (idle !== undefined) {
      throw new TinferError("usage", `--${idle} changes nothing: copy keeps all types`, {
        hint: "name a TYPE for the other tensors",
      });
    }
    return new Map(tensors.map(({ name, type }) => [name, { type, refused: undefined }]));
  }
  const options = { ...typeOptions(values), mix, hasImportance: importance !== undefined };
  for (const { pattern } of options.overrides ?? []) {
    if (tensors.some((tensor) => pattern.test(tensor.name) && !staysAsItIs(tensor))) continue;
    warn(`--tensor-type ${pattern.source} changes nothing: no tensor of that name is quantised`);
  }
  return chooseTypes(tensors, readMixFacts(input.metadata), options);
}

function checkRequantize(
  { tensors }: ModelHeader,
  types: ReadonlyMap<string, ChosenType>,
  isAllowed: boolean,
): void {
  if (isAllowed) return;
  for (const { name, type } of tensors.values()) {
    const wanted = types.get(name)!.type;
    if (type === wanted || quantTypeInfo(type).quantBlockSize === 1) continue;
    const text = `tensor '${name}' is ${type} already: from there to ${wanted}, errors add up`;
    throw new TinferError("unsupported", text, {
      hint: "start from the F16, BF16 or F32 model, or give --allow-requantize",
    });
  }
}

/** Rows that are no whole blocks of the wanted type: said once per pair of types. */
function sayRefused(types: ReadonlyMap<string, ChosenType>): void {
  const counts = new Map<string, number>();
  for (const { type, refused } of types.values()) {
    if (refused === undefined) continue;
    const pair = `${refused} do not fit the rows of`;
    const key = `${pair} %: they get ${type}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  for (const [text, count] of counts) say(`blocks of ${text.replace("%", `${count} tensors`)}`);
}

function warnWithoutImportance(tensors: readonly NewTensor[], mix: Mix): void {
  const hungry = tensors.filter(({ source, type, importance }) => {
    return (
      importance === undefined && type !== source.type && needsImportance(source.name, type, mix)
    );
  });
  if (hungry.length === 0) return;
  const types = [...new Set(hungry.map(({ type }) => type))].join(", ");
  warn(
    `${hungry.length} tensors become ${types} without an importance matrix: much quality is lost; ` +
      "`tinfer imatrix` makes one for --imatrix",
  );
}

function newTensors(
  input: ModelHeader,
  types: ReadonlyMap<string, ChosenType>,
  importance: ImportanceMatrix | undefined,
): NewTensor[] {
  return Array.from(input.tensors.values(), (source) => {
    const values = importance?.values.get(source.name);
    const { type } = types.get(source.name)!;
    const wanted = (source.shape.at(-1) ?? 1) * (source.shape.at(-3) ?? 1);
    if (values !== undefined && values.length !== wanted) {
      const sizes = `${values.length} values for '${source.name}', which has ${wanted}`;
      throw new TinferError("invalidFile", `the importance matrix has ${sizes}`, {
        hint: "it was made from another model: make one from this one with `tinfer imatrix`",
      });
    }
    return { source, type, importance: values };
  });
}

/** The version of the block formats, which has been 2 since May 2023. */
const quantizationVersion = 2;

function newMetadata(
  input: ModelHeader,
  mix: Mix | undefined,
  importance: ImportanceMatrix | undefined,
  importancePath: string | undefined,
): (readonly [string, GgufValue])[] {
  const metadata = new Map(withoutSplit(input.values));
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const text = (value: string): GgufValue => ({ type: "string", value });
  if (mix !== undefined) {
    metadata.set("general.quantization_version", u32(quantizationVersion));
    metadata.set("general.file_type", u32(mix.fileType));
  }
  if (importance !== undefined && importancePath !== undefined) {
    metadata.set("quantize.imatrix.file", text(importancePath));
    const [dataset] = importance.datasets;
    if (dataset !== undefined) metadata.set("quantize.imatrix.dataset", text(dataset));
    metadata.set("quantize.imatrix.entries_count", u32(importance.values.size));
    metadata.set("quantize.imatrix.chunks_count", u32(importance.numChunks));
  }
  return [...metadata];
}

function reportDryRun(files: readonly NewFile[], isJson: boolean): void {
  const bytes = files.reduce((sum, file) => sum + newFileBytes(file), 0);
  const tensors = files.flatMap(({ tensors }) => tensors);
  if (isJson) {
    const rows = tensors.map(({ source: { name, shape, type: from }, type: to }) => {
      return { name, shape, from, to };
    });
    outJson({ output: files.map(({ path }) => path), bytes, tensors: rows });
    return;
  }
  const rows = tensors.map(({ source: { name, shape, type: from }, type }) => {
    return [name, `[${shape.join(", ")}]`, from, type === from ? "stays" : `→ ${type}`];
  });
  for (const line of formatTable(rows)) out(line);
  const count = files.length > 1 ? ` in ${files.length} files` : "";
  out(`${tensors.length} tensors, ${formatBytes(bytes)}${count}`);
}
