// All safetensors files of a model folder: one file, or shards that an index lists.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { TinferError } from "../core/errors.ts";
import { quote } from "./gguf-values.ts";
import { readSafetensors, type SafeTensor } from "./safetensors.ts";

const limits = {
  /** Bytes of the index; the largest published have 10 MB. */
  indexBytes: 64 * 2 ** 20,
  numShards: 1_024,
} as const;

export interface SafetensorsModel {
  readonly paths: readonly string[];
  readonly fileBytes: readonly number[];
  /** By name, in the order of files and offsets. */
  readonly tensors: ReadonlyMap<string, SafeTensor>;
}

const indexName = "model.safetensors.index.json";
const downloadParts = "download all files of the model again, from the same place";

export function readSafetensorsFolder(folder: string): SafetensorsModel {
  const indexPath = join(folder, indexName);
  if (!existsSync(indexPath)) return joinFiles([singleFile(folder)]);
  const placed = readIndex(indexPath);
  const names = [...new Set(placed.values())].sort();
  const model = joinFiles(names.map((name) => join(folder, name)));
  for (const [tensor, file] of placed) {
    const found = model.tensors.get(tensor);
    if (found !== undefined && names[found.fileIndex] === file) continue;
    const text = `${indexPath}: tensor ${quote(tensor)} should be in ${file}, but is not`;
    throw new TinferError("invalidFile", text, { hint: downloadParts });
  }
  return model;
}

function singleFile(folder: string): string {
  const path = join(folder, "model.safetensors");
  if (existsSync(path)) return path;
  const files = readdirSync(folder);
  const tensorFiles = files.filter((file) => file.endsWith(".safetensors"));
  if (tensorFiles.length === 1) return join(folder, tensorFiles[0]!);
  if (tensorFiles.length > 1) {
    const text = `${folder} has ${tensorFiles.length} .safetensors files but no ${indexName}`;
    throw new TinferError("notFound", text, { hint: "download the index too" });
  }
  const isPickled = files.some((file) => /\.(bin|pt|pth)$/.test(file));
  throw new TinferError("notFound", `${folder} has no model.safetensors`, {
    hint: isPickled
      ? "its weights are Python pickles, which tinfer does not run: take the .safetensors files"
      : "download the weights (model.safetensors, or all shards and their index)",
  });
}

/** Tensor name → name of the file that holds it. */
function readIndex(path: string): Map<string, string> {
  const problem = (text: string) => new TinferError("invalidFile", `${path}: ${text}`, { hint });
  const hint = downloadParts;
  const { size } = statSync(path);
  if (size > limits.indexBytes) throw problem(`${size} bytes, at most ${limits.indexBytes}`);
  let index: unknown;
  try {
    index = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw problem(`it is not JSON (${cause instanceof Error ? cause.message : cause})`);
  }
  const weightMap = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof weightMap !== "object" || weightMap === null || Array.isArray(weightMap)) {
    throw problem("weight_map is not a JSON object");
  }
  const placed = new Map<string, string>();
  for (const [tensor, file] of Object.entries(weightMap)) {
    // Files lie beside the index: no way leads out of the folder.
    const isName = typeof file === "string" && /^[^/\\\0]+\.safetensors$/.test(file);
    if (!isName) throw problem(`weight_map of tensor ${quote(tensor)} is no .safetensors name`);
    placed.set(tensor, file);
  }
  const numShards = new Set(placed.values()).size;
  if (numShards === 0) throw problem("weight_map is empty");
  if (numShards > limits.numShards) throw problem(`weight_map names ${numShards} files`);
  return placed;
}

function joinFiles(paths: readonly string[]): SafetensorsModel {
  const files = paths.map((path, index) => readSafetensors(path, index));
  const tensors = new Map<string, SafeTensor>();
  for (const file of files) {
    for (const [name, tensor] of file.tensors) {
      const earlier = tensors.get(name);
      if (earlier !== undefined) {
        const both = `${files[earlier.fileIndex]!.path} and in ${file.path}`;
        throw new TinferError("invalidFile", `tensor ${quote(name)} is in ${both}`, {
          hint: downloadParts,
        });
      }
      tensors.set(name, tensor);
    }
  }
  return { paths, fileBytes: files.map((file) => file.fileBytes), tensors };
}
