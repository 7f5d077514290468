// Gives the memory of a buffer back at once. The collector knows its small objects, not that each
// holds megabytes: loading a model of 4 GB left 400 MB of read chunks behind.

/** `bytes` is empty afterwards. A part of a larger buffer is left alone: others may read it. */
export function release({ buffer, byteLength }: Uint8Array<ArrayBuffer> | Float32Array): void {
  if (buffer instanceof ArrayBuffer && byteLength === buffer.byteLength) buffer.transfer(0);
}
