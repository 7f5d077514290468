// Distributes the tensors of a model over files, as every tool names and marks them.
import { basename, dirname } from "node:path";
import { TinferError } from "../core/errors.ts";
import { shardPath } from "./gguf.ts";
import { ggufLimits } from "./gguf-limits.ts";
import type { GgufValue } from "./gguf-types.ts";
import { tensorBytes } from "./quant-types.ts";
import type { NewFile, NewTensor } from "./rewrite-model.ts";

/** One of the two; neither: one file. */
export interface SplitLimit {
  readonly maxBytes?: number | undefined;
  readonly maxTensors?: number | undefined;
}

/** Metadata without what only says how the source was split. */
export function withoutSplit(
  values: ReadonlyMap<string, GgufValue>,
): (readonly [string, GgufValue])[] {
  return [...values].filter(([key]) => !/^split\.(no|count|tensors\.count)$/.test(key));
}

/** The files at `path`, or with a limit at `path-00001-of-0000N.gguf` and so on. */
export function splitFiles(content: NewFile, limit: SplitLimit): NewFile[] {
  const { path, metadata, tensors } = content;
  if (limit.maxBytes === undefined && limit.maxTensors === undefined) return [content];
  const groups = groupTensors(tensors, limit);
  const count = groups.length;
  if (count > ggufLimits.numShards) {
    throw new TinferError("usage", `that makes ${count} files, at most ${ggufLimits.numShards}`, {
      hint: "raise the limit",
    });
  }
  const stem = basename(path).replace(/\.gguf$/, "");
  if (stem === "") {
    throw new TinferError("usage", "the name of the files to write is empty", { hint: "give one" });
  }
  return groups.map((group, index) => ({
    path: shardPath(dirname(path), stem, index, count),
    // The first part describes the model.
    metadata: [...(index === 0 ? metadata : []), ...splitKeys(index, count, tensors.length)],
    tensors: group,
  }));
}

function splitKeys(index: number, count: number, numTensors: number) {
  return [
    ["split.no", { type: "u16", value: index }],
    ["split.count", { type: "u16", value: count }],
    ["split.tensors.count", { type: "i32", value: numTensors }],
  ] as const;
}

/** In order; a tensor larger than the limit has a file of its own. */
function groupTensors(tensors: readonly NewTensor[], limit: SplitLimit): NewTensor[][] {
  const maxBytes = limit.maxBytes ?? Number.POSITIVE_INFINITY;
  const maxTensors = limit.maxTensors ?? Number.POSITIVE_INFINITY;
  const groups: NewTensor[][] = [[]];
  let groupBytes = 0;
  for (const tensor of tensors) {
    const bytes = tensorBytes(tensor.type, tensor.source.shape);
    const group = groups.at(-1)!;
    const isFull = group.length >= maxTensors || groupBytes + bytes > maxBytes;
    if (isFull && group.length > 0) {
      groups.push([tensor]);
      groupBytes = bytes;
    } else {
      group.push(tensor);
      groupBytes += bytes;
    }
  }
  return groups;
}
