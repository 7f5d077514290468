// Reads single tensors of a GGUF model into JavaScript memory: for the reference executor, for
// tests and for conversions. Inference maps the files natively and never comes here.
import { closeSync, openSync, readSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import { dequantizeRow } from "./dequantize.ts";
import type { GgufFile, TensorInfo } from "./gguf.ts";

/** One read moves at most this much: some systems refuse 2 GiB and more. */
const readStepBytes = 2 ** 28;

/** The tensor's bytes as they are in the file. */
export function readTensorBytes(file: GgufFile, tensor: TensorInfo): Uint8Array<ArrayBuffer> {
  const path = file.paths[tensor.fileIndex]!;
  const bytes = new Uint8Array(tensor.bytes);
  try {
    const descriptor = openSync(path, "r");
    try {
      readAll(descriptor, bytes, tensor, path);
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    if (cause instanceof TinferError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TinferError("unreadable", `${path} cannot be read: ${reason}`, {
      hint: "check that the file is still there and that this user may read it",
      cause,
    });
  }
  return bytes;
}

function readAll(descriptor: number, bytes: Uint8Array, tensor: TensorInfo, path: string): void {
  let numRead = 0;
  while (numRead < bytes.length) {
    const target = bytes.subarray(numRead, numRead + readStepBytes);
    const step = readSync(descriptor, target, 0, target.length, tensor.offset + numRead);
    if (step === 0) {
      throw new TinferError("unreadable", `${path} became shorter while it was in use`, {
        hint: "another program changed the file: download it again",
      });
    }
    numRead += step;
  }
}

/** The tensor's elements in f32, row-major, whatever its type. */
export function readTensorFloats(file: GgufFile, tensor: TensorInfo): Float32Array<ArrayBuffer> {
  const numElements = tensor.shape.reduce((product, dimension) => product * dimension, 1);
  const floats = new Float32Array(numElements);
  dequantizeRow(tensor.type, readTensorBytes(file, tensor), floats);
  return floats;
}
