// Opens a Hugging Face model folder: config.json, tokenizer files and safetensors, presented in
// the vocabulary of GGUF, so that nothing beyond this folder of the source knows the difference.
import { basename, resolve } from "node:path";
import { TinferError } from "../core/errors.ts";
import { plainMetadata } from "../weights/gguf-values.ts";
import type { ModelHeader } from "../weights/model-header.ts";
import { readSafetensorsFolder } from "../weights/safetensors-folder.ts";
import { commonMetadata } from "./common.ts";
import { folderFamilyOf } from "./families/registry.ts";
import { type JsonObject, readFolderJson } from "./json-file.ts";
import { MetadataValues } from "./metadata-values.ts";
import { folderTensors } from "./tensors.ts";
import { tokenizerMetadata } from "./tokenizer.ts";

export function openFolder(folder: string): ModelHeader {
  const raw = readFolderJson(folder, "config.json");
  if (raw === undefined) {
    throw new TinferError("notFound", `${folder} is a folder without config.json`, {
      hint: "give a .gguf file, or a model folder with config.json, tokenizer.json and safetensors",
    });
  }
  // Multimodal models keep the language model's part apart.
  const text = raw.object("text_config");
  const config = text === undefined ? raw : raw.with(text);
  const family = folderFamilyOf(config);
  checkQuantisation(config);
  const values = new MetadataValues(family.architecture);
  values.text("general.architecture", family.architecture);
  values.text("general.name", nameOf(folder, config));
  commonMetadata(config, values);
  family.metadata?.(config, values);
  tokenizerMetadata(folder, config, values);
  const model = readSafetensorsFolder(folder);
  const { paths, fileBytes } = model;
  const tensors = folderTensors(model, family, config);
  const metadata = plainMetadata(values.values);
  const format = text === undefined ? "safetensors" : "safetensors, its text part alone";
  return { format, paths, fileBytes, metadata, values: values.values, tensors };
}

function nameOf(folder: string, config: JsonObject): string {
  const name = config.text("_name_or_path");
  return name !== undefined && name !== "" ? basename(name) : basename(resolve(folder));
}

/** Weights of other quantisers are no plain numbers. */
function checkQuantisation(config: JsonObject): void {
  const method = config.object("quantization_config")?.text("quant_method");
  // Where these methods hold more than 8-bit floats, their tensors' types say so.
  if (method === undefined || ["fp8", "mxfp4", "compressed-tensors", "fbgemm_fp8"].includes(method))
    return;
  throw new TinferError("unsupported", `${config.path}: weights quantised by '${method}'`, {
    hint: "take the original weights (--quantize makes them small), or a GGUF file",
  });
}
