// Reads a byte range of a file into JavaScript memory.
import { closeSync, openSync, readSync } from "node:fs";
import { TinferError } from "../core/errors.ts";

/** One read moves at most this much: some systems refuse 2 GiB and more. */
const readStepBytes = 2 ** 28;

export function readFileRange(
  path: string,
  offset: number,
  numBytes: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(numBytes);
  try {
    const descriptor = openSync(path, "r");
    try {
      readAll(descriptor, bytes, offset, path);
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

function readAll(descriptor: number, bytes: Uint8Array, offset: number, path: string): void {
  let numRead = 0;
  while (numRead < bytes.length) {
    const target = bytes.subarray(numRead, numRead + readStepBytes);
    const step = readSync(descriptor, target, 0, target.length, offset + numRead);
    if (step === 0) {
      throw new TinferError("unreadable", `${path} became shorter while it was in use`, {
        hint: "another program changed the file: download it again",
      });
    }
    numRead += step;
  }
}
