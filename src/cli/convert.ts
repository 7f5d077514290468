// `tinfer convert`: a Hugging Face model folder as one GGUF file.
import { existsSync } from "node:fs";
import { basename } from "node:path";
import { TinferError } from "../core/errors.ts";
import { outputFile } from "../core/output-file.ts";
import { isModelFolder, openForWriting } from "../engine/open-model.ts";
import { readMixFacts } from "../models/mix-facts.ts";
import type { GgufValue } from "../weights/gguf-types.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import type { QuantType } from "../weights/quant-types.ts";
import { findMix, mixNames } from "../weights/quantize-mix.ts";
import { chooseTypes } from "../weights/quantize-types.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { threadCount, threadsFlag } from "./quantize-flags.ts";
import { reportRewrite, writeModel } from "./rewrite.ts";
import { warn } from "./terminal.ts";

export const convert: Command = {
  name: "convert",
  summary: "A Hugging Face folder (safetensors) as a GGUF file.",
  positionals: [
    { name: "HF_DIR", description: "folder with config.json and safetensors", required: true },
    { name: "OUT", description: "the .gguf file to write", required: true },
  ],
  flags: {
    type: {
      kind: "text",
      placeholder: "TYPE",
      description: `weight type: auto (as the folder has them), ${mixNames.join(", ")}`,
      default: "auto",
    },
    force: { kind: "boolean", description: "replace OUT if it exists", default: false },
    ...threadsFlag,
    json: { kind: "boolean", description: "the result as JSON", default: false },
  },
  examples: [
    ["tinfer convert ./Llama-3.2-1B llama.gguf", "16-bit weights stay as they are"],
    ["tinfer convert ./Llama-3.2-1B llama.gguf --type q8_0", "and quantised on the way"],
  ],
  run: async (values) => convertCommand(values),
};

function convertCommand(values: FlagValues): void {
  const [folder, outPath] = values.positionals as [string, string];
  if (existsSync(outputFile(outPath)) && !values.boolean("force")) {
    throw new TinferError("usage", `${outPath} exists already`, {
      hint: "give another name, or --force to replace it",
    });
  }
  if (!isModelFolder(folder)) {
    const what = existsSync(folder) ? "is not a folder" : "does not exist";
    throw new TinferError("usage", `${folder} ${what}`, {
      hint: "convert takes Hugging Face folders; for GGUF files there is `tinfer quantize`",
    });
  }
  const input = openForWriting(folder);
  const typeName = values.text("type")!;
  const { types, fileType } = chosenTypes(input, typeName);
  if (input.metadata.has("tokenizer.ggml.pre_patterns")) {
    warn("the pretokenizer has no name in GGUF: other programs may cut words in other places");
  }
  const tensors = Array.from(input.tensors.values(), (source) => {
    return { source, type: types.get(source.name)!, importance: undefined };
  });
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const metadata = new Map(input.values);
  metadata.set("general.file_type", u32(fileType));
  metadata.set("general.quantization_version", u32(quantizationVersion));
  const files = [{ path: outPath, metadata: [...metadata], tensors }];
  const report = writeModel(basename(outPath), input, files, threadCount(values));
  reportRewrite(report, values.boolean("json"));
}

/** The version of the block formats, which has been 2 since May 2023. */
const quantizationVersion = 2;

function chosenTypes(input: ModelHeader, typeName: string) {
  const tensors = [...input.tensors.values()];
  if (typeName !== "auto") {
    const mix = findMix(typeName);
    const chosen = chooseTypes(tensors, readMixFacts(input.metadata), { mix });
    const types = new Map([...chosen].map(([name, { type }]) => [name, type]));
    return { types, fileType: mix.fileType };
  }
  const bytes = new Map<QuantType, number>();
  for (const tensor of tensors) {
    bytes.set(tensor.type, (bytes.get(tensor.type) ?? 0) + tensor.bytes);
  }
  const [main] = [...bytes].toSorted((a, b) => b[1] - a[1])[0] ?? ["f32"];
  const types = new Map(tensors.map(({ name, type }) => [name, type]));
  return { types, fileType: findMix(main).fileType };
}
