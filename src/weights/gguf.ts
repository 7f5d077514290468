// Opens GGUF models: one file or the first of several shards, header only. What the bytes mean
// is in `gguf-header.ts`; the tensors themselves are mapped later, by whoever computes.
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { TinferError } from "../core/errors.ts";
import { type ByteSource, downloadAgain } from "./gguf-cursor.ts";
import { type GgufHeader, parseGgufHeader, type TensorInfo } from "./gguf-header.ts";
import { ggufLimits } from "./gguf-limits.ts";
import type { GgufValue } from "./gguf-types.ts";
import { plainMetadata, quote } from "./gguf-values.ts";
import type { ModelHeader } from "./model-header.ts";

export type { TensorInfo } from "./gguf-header.ts";

export interface GgufFile extends ModelHeader {
  readonly version: number;
  readonly alignment: number;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** Reads the header of the model at `path`; for a split model `path` is the first shard. */
export function readGguf(path: string): GgufFile {
  const first = readShard(path, 0);
  const numShards = splitNumber(first, "split.count") ?? 1;
  if (numShards <= 1) {
    const { tensorsOffset: _, ...header } = first.header;
    const format = formatOf(header.version);
    return { format, paths: [path], fileBytes: [first.fileBytes], ...header };
  }
  return joinShards(first, numShards);
}

const formatOf = (version: number) => `GGUF version ${version}`;

const downloadParts = "download all parts of the model again, from the same place";

interface Shard {
  readonly path: string;
  readonly fileBytes: number;
  readonly header: GgufHeader;
}

/** Throws where the one file at `path`, called `name` in messages, is no whole GGUF file. */
export function checkGguf(path: string, name: string): void {
  readShard(path, 0, name);
}

function readShard(path: string, fileIndex: number, name = path): Shard {
  const file = openRegularFile(path);
  try {
    const fileBytes = fstatSync(file).size;
    const header = parseGgufHeader(fileSource(file, name, fileBytes), fileIndex);
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

/** Whether the file at `path` begins as GGUF files do. */
export function startsAsGguf(path: string): boolean {
  const file = openRegularFile(path);
  try {
    const head = new Uint8Array(4);
    readStep(file, path, head, 0);
    return Buffer.from(head).toString("latin1") === "GGUF";
  } finally {
    closeSync(file);
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

export function shardPath(folder: string, stem: string, index: number, count: number): string {
  const number = String(index + 1).padStart(5, "0");
  return join(folder, `${stem}-${number}-of-${String(count).padStart(5, "0")}.gguf`);
}

/** A whole number under one of the `split.` keys. */
function splitNumber(shard: Shard, key: string): number | undefined {
  const value = shard.header.metadata.get(key);
  if (value === undefined) return undefined;
  const limit = key === "split.tensors.count" ? Number.MAX_SAFE_INTEGER : ggufLimits.numShards;
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= limit) {
    return value;
  }
  const shown = typeof value === "number" ? value : "its value";
  throw new TinferError(
    "invalidFile",
    `${shard.path}: metadata key '${key}': ${shown} is not a whole number from 0 to ${limit}`,
    { hint: downloadAgain },
  );
}

function joinShards(first: Shard, numShards: number): GgufFile {
  const pathOf = shardPathsOf(first, numShards);
  const shards: Shard[] = [first];
  for (let index = 1; index < numShards; index++) {
    shards.push(readNextShard(pathOf(index), index, numShards));
  }
  const tensors = joinTensors(shards);
  checkTensorCount(first, tensors.size);
  const values = joinValues(shards);
  return {
    format: formatOf(first.header.version),
    paths: shards.map((shard) => shard.path),
    fileBytes: shards.map((shard) => shard.fileBytes),
    version: first.header.version,
    alignment: first.header.alignment,
    metadata: plainMetadata(values),
    values,
    tensors,
  };
}

/** Checks that `shard` is the first one and returns where the others lie. */
function shardPathsOf(shard: Shard, numShards: number): (index: number) => string {
  const { path } = shard;
  const [, stem, number, count] = shardName.exec(basename(path)) ?? [];
  const shardIndex = splitNumber(shard, "split.no") ?? 0;
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
  const number = splitNumber(shard, "split.no");
  const count = splitNumber(shard, "split.count");
  if (number !== index || count !== numShards) {
    const found = number === undefined ? "no part of a model" : `part ${number + 1} of ${count}`;
    throw new TinferError(
      "invalidFile",
      `${path} should be part ${index + 1} of ${numShards}, but says that it is ${found}`,
      { hint: downloadParts },
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
          hint: downloadParts,
        });
      }
      tensors.set(name, tensor);
    }
  }
  return tensors;
}

function checkTensorCount(first: Shard, numTensors: number): void {
  const wanted = splitNumber(first, "split.tensors.count");
  if (wanted === undefined || wanted === numTensors) return;
  throw new TinferError(
    "invalidFile",
    `${first.path}: the parts hold ${numTensors} tensors together, the model has ${wanted}`,
    { hint: downloadParts },
  );
}

/** The first part describes the model; later parts may only add keys that it does not have. */
function joinValues(shards: readonly Shard[]): Map<string, GgufValue> {
  const values = new Map<string, GgufValue>();
  for (const shard of shards) {
    for (const [key, value] of shard.header.values) {
      if (!values.has(key)) values.set(key, value);
    }
  }
  return values;
}
