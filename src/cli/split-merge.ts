// `tinfer split` and `tinfer merge`: a model in several files and back, its weights unchanged.
import { basename } from "node:path";
import { TinferError } from "../core/errors.ts";
import { readGguf } from "../weights/gguf.ts";
import { type SplitLimit, withoutSplit } from "../weights/split-model.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { modelPath } from "./model-flags.ts";
import { splitFlags, splitLimit } from "./quantize-flags.ts";
import { limitedFiles, reportRewrite, writeModel } from "./rewrite.ts";

const json = { kind: "boolean", description: "the result as JSON", default: false } as const;
const source = { name: "IN", description: "a .gguf file or a stored name", required: true };

/** Where no limit is given; what other tools take. */
const defaultMaxTensors = 128;

export const split: Command = {
  name: "split",
  summary: "A model in several files: OUT-00001-of-00003.gguf and so on.",
  positionals: [source, { name: "OUT", description: "the names' beginning", required: true }],
  flags: { ...splitFlags, json },
  examples: [
    ["tinfer split model.gguf part --split-max-size 2G", "files of at most 2 GB"],
    ["tinfer split model.gguf part", `files of at most ${defaultMaxTensors} tensors`],
  ],
  run: async (values) => {
    const given = splitLimit(values);
    const isGiven = given.maxBytes !== undefined || given.maxTensors !== undefined;
    rewrite(values, isGiven ? given : { maxTensors: defaultMaxTensors });
  },
};

export const merge: Command = {
  name: "merge",
  summary: "One file of a model that came in several.",
  positionals: [
    { name: "FIRST", description: "the first of the files", required: true },
    { name: "OUT", description: "the file to write", required: true },
  ],
  flags: { json },
  examples: [["tinfer merge model-00001-of-00003.gguf model.gguf", "finds the others itself"]],
  run: async (values) => {
    rewrite(values, {});
  },
};

function rewrite(values: FlagValues, limit: SplitLimit): void {
  const [inPath, path] = values.positionals as [string, string];
  const input = readGguf(modelPath(inPath));
  const isMerge = limit.maxBytes === undefined && limit.maxTensors === undefined;
  if (isMerge && input.paths.length === 1) {
    throw new TinferError("usage", `${inPath} is one file already`, { hint: "copy it" });
  }
  const tensors = Array.from(input.tensors.values(), (tensor) => {
    return { source: tensor, type: tensor.type, importance: undefined };
  });
  const files = limitedFiles({ path, metadata: withoutSplit(input.values), tensors }, limit);
  reportRewrite(writeModel(basename(path), input, files, 1), values.boolean("json"));
}
