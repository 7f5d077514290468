// Opens GGUF models: one file or the first of several shards, header only. What the bytes mean
// is in `gguf-header.ts`; the tensors themselves are mapped later, by whoever computes.
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { TinferError } from "../core/errors.ts";
import type { ByteSource } from "./gguf-cursor.ts";
import { type GgufHeader, parseGgufHeader, type TensorInfo } from "./gguf-header.ts";
import { ggufLimits } from "./gguf-limits.ts";
import { quote } from "./gguf-values.ts";
import { getNumber, type Metadata, type MetadataValue } from "./metadata.ts";

export type { TensorInfo } from "./gguf-header.ts";

export interface GgufFile {
  /** One path, or all shards in order. */
  readonly paths: readonly string[];
  /** Bytes of each of `paths`. */
  readonly fileBytes: readonly number[];
  readonly version: number;
  readonly alignment: number;
  readonly metadata: Metadata;
  /** In the order of the files; none in a vocabulary-only file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** Reads the header of the model at `path`; for a split model `path` is the first shard. */
export function readGguf(path: string): GgufFile {
  const first = readShard(path, 0);
  const numShards = getNumber(first.header.metadata, "split.count") ?? 1;
  if (numShards <= 1) {
    const { version, alignment, metadata, tensors } = first.header;
    return { paths: [path], fileBytes: [first.fileBytes], version, alignment, metadata, tensors };
  }
  return joinShards(path, first, numShards);
}

interface Shard {
  readonly path: string;
  readonly fileBytes: number;
  readonly header: GgufHeader;
}

function readShard(path: string, fileIndex: number): Shard {
  const file = openRegularFile(path);
  try {
    const fileBytes = fstatSync(file).size;
    const header = parseGgufHeader(fileSource(file, path, fileBytes), fileIndex);
    return { path, fileBytes, header };
  } finally {
    closeSync(file);
  }
}

function openRegularFile(path: string): number {
  try {
    const stat = statSync(path);
    if (stat.isDirectory()) {
      throw new TinferError("unreadable", `${path} is a folder, not a GGUF file`, {
        hint: "give the path of a .gguf file",
      });
    }
    // A pipe or device has no end that extents could be checked against, and may block.
    if (!stat.isFile()) {
      throw new TinferError("unreadable", `${path} is not a regular file`, {
        hint: "give the path of a .gguf file on a disk",
      });
    }
    return openSync(path, "r");
  } catch (cause) {
    throw cause instanceof TinferError ? cause : openError(path, cause);
  }
}

function openError(path: string, cause: unknown): TinferError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new TinferError("notFound", `${path}: there is no such file`, {
      hint: "check the path; `tinfer ls` lists the models on this machine",
      cause,
    });
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new TinferError("unreadable", `${path} cannot be read: ${reason}`, {
    hint: "check that this user may read the file",
    cause,
  });
}

function fileSource(file: number, path: string, byteLength: number): ByteSource {
  return {
    name: path,
    byteLength,
    read(target, offset) {
      let numRead = 0;
      while (numRead < target.length) {
        const step = readStep(file, path, target.subarray(numRead), offset + numRead);
        if (step === 0) break;
        numRead += step;
      }
      return numRead;
    },
  };
}

function readStep(file: number, path: string, target: Uint8Array, offset: number): number {
  try {
    return readSync(file, target, 0, target.length, offset);
  } catch (cause) {
    throw openError(path, cause);
  }
}

/** `stem-00001-of-00003.gguf`, the name that every tool gives to the shards of a model. */
const shardName = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/s;

function shardPath(folder: string, stem: string, index: number, count: number): string {
  const number = String(index + 1).padStart(5, "0");
  return join(folder, `${stem}-${number}-of-${String(count).padStart(5, "0")}.gguf`);
}

function joinShards(path: string, first: Shard, numShards: number): GgufFile {
  if (!Number.isInteger(numShards) || numShards > ggufLimits.numShards) {
    throw new TinferError(
      "invalidFile",
      `${path}: metadata key 'split.count': ${numShards} is not a count up to ${ggufLimits.numShards}`,
      { hint: "download the model again" },
    );
  }
  const pathOf = shardPathsOf(path, first.header.metadata, numShards);
  const shards: Shard[] = [first];
  for (let index = 1; index < numShards; index++) {
    shards.push(readNextShard(pathOf(index), index, numShards));
  }
  const tensors = joinTensors(shards);
  checkTensorCount(path, first.header.metadata, tensors.size);
  return {
    paths: shards.map((shard) => shard.path),
    fileBytes: shards.map((shard) => shard.fileBytes),
    version: first.header.version,
    alignment: first.header.alignment,
    metadata: joinMetadata(shards),
    tensors,
  };
}

/** Checks that `path` is the first shard and returns where the others lie. */
function shardPathsOf(
  path: string,
  metadata: Metadata,
  numShards: number,
): (index: number) => string {
  const [, stem, number, count] = shardName.exec(basename(path)) ?? [];
  const shardIndex = getNumber(metadata, "split.no") ?? 0;
  if (shardIndex !== 0) {
    const first = stem === undefined ? undefined : shardPath(dirname(path), stem, 0, numShards);
    throw new TinferError("usage", `${path} is part ${shardIndex + 1} of ${numShards} of a model`, {
      hint: `give the first part${first === undefined ? "" : `: ${first}`}`,
    });
  }
  const isFirst = Number(number) === 1 && Number(count) === numShards;
  if (stem === undefined || !isFirst) {
    const wanted = basename(shardPath("", stem ?? basename(path, ".gguf"), 0, numShards));
    throw new TinferError(
      "notFound",
      `${path} is part 1 of ${numShards}, but its name does not say where the others lie`,
      { hint: `name the parts as they were published, the first one like ${wanted}` },
    );
  }
  return (index) => shardPath(dirname(path), stem, index, numShards);
}

function readNextShard(path: string, index: number, numShards: number): Shard {
  let shard: Shard;
  try {
    shard = readShard(path, index);
  } catch (cause) {
    if (!(cause instanceof TinferError) || cause.code !== "notFound") throw cause;
    throw new TinferError("notFound", `part ${index + 1} of ${numShards} is missing: ${path}`, {
      hint: "download all parts of the model into the same folder",
      cause,
    });
  }
  const number = getNumber(shard.header.metadata, "split.no");
  const count = getNumber(shard.header.metadata, "split.count");
  if (number !== index || count !== numShards) {
    const found = number === undefined ? "no part of a model" : `part ${number + 1} of ${count}`;
    throw new TinferError(
      "invalidFile",
      `${path} should be part ${index + 1} of ${numShards}, but says that it is ${found}`,
      { hint: "download all parts of the model again, from the same place" },
    );
  }
  return shard;
}

function joinTensors(shards: readonly Shard[]): Map<string, TensorInfo> {
  const tensors = new Map<string, TensorInfo>();
  for (const shard of shards) {
    for (const [name, tensor] of shard.header.tensors) {
      const earlier = tensors.get(name);
      if (earlier !== undefined) {
        const both = `${shards[earlier.fileIndex]!.path} and in ${shard.path}`;
        throw new TinferError("invalidFile", `tensor ${quote(name)} is in ${both}`, {
          hint: "download all parts of the model again, from the same place",
        });
      }
      tensors.set(name, tensor);
    }
  }
  return tensors;
}

function checkTensorCount(path: string, metadata: Metadata, numTensors: number): void {
  const wanted = getNumber(metadata, "split.tensors.count");
  if (wanted === undefined || wanted === numTensors) return;
  throw new TinferError(
    "invalidFile",
    `${path}: the parts hold ${numTensors} tensors together, the model has ${wanted}`,
    { hint: "download all parts of the model again, from the same place" },
  );
}

/** The first part describes the model; later parts may only add keys that it does not have. */
function joinMetadata(shards: readonly Shard[]): Metadata {
  const metadata = new Map<string, MetadataValue>();
  for (const shard of shards) {
    for (const [key, value] of shard.header.metadata) {
      if (!metadata.has(key)) metadata.set(key, value);
    }
  }
  return metadata;
}
