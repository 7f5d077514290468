// Writes a model again: other weight types, other files, or both. Streams tensor by tensor; what
// the new files hold is decided by the caller.
import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { GgufValue } from "./gguf-types.ts";
import { layOutGguf } from "./gguf-writer.ts";
import { MappedTensors, requireFloats } from "./mapped-tensors.ts";
import type { ModelHeader, ModelTensor } from "./model-header.ts";
import { type QuantType, tensorBytes } from "./quant-types.ts";
import { quantizeRuns } from "./quantize.ts";
import { ResumableFiles } from "./resumable-file.ts";

export interface NewTensor {
  readonly source: ModelTensor;
  readonly type: QuantType;
  /** `[cols]`, or a row for each matrix of a stack. */
  readonly importance: Float32Array | undefined;
}

export interface NewFile {
  readonly path: string;
  readonly metadata: readonly (readonly [string, GgufValue])[];
  readonly tensors: readonly NewTensor[];
}

export interface RewriteProgress {
  /** Bytes of the source that are dealt with. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly tensor: string;
  /** Tensors that an earlier run had finished. */
  readonly numKept: number;
}

const shapeOf = ({ source, type }: NewTensor) => ({ name: source.name, type, shape: source.shape });

/** Bytes of the file on the disk. */
export function newFileBytes({ metadata, tensors }: NewFile): number {
  return layOutGguf(metadata, tensors.map(shapeOf)).totalBytes;
}

/** Yields after every run of rows; the files are in place when it returns. */
export function* rewriteModel(
  input: ModelHeader,
  files: readonly NewFile[],
  numThreads: number,
): Generator<RewriteProgress> {
  const outlines = files.map(({ path, metadata, tensors }) => {
    const { header, offsets, totalBytes } = layOutGguf(metadata, tensors.map(shapeOf));
    const parts = tensors.map(({ source, type }, index) => {
      return { offset: offsets[index]!, bytes: tensorBytes(type, source.shape) };
    });
    return { path, totalBytes, head: header, parts };
  });
  using source = new MappedTensors(input);
  using writer = new ResumableFiles(outlines, identityOf(input, files, outlines));
  const totalBytes = sum(files.flatMap(({ tensors }) => tensors.map((t) => t.source.bytes)));
  let finishedBytes = 0;
  let numKept = 0;
  for (const [file, { tensors }] of files.entries()) {
    for (const [part, tensor] of tensors.entries()) {
      const { name, bytes } = tensor.source;
      if (writer.isFinished(file, part)) numKept++;
      else {
        let written = 0;
        const share = bytes / tensorBytes(tensor.type, tensor.source.shape);
        const chunks = newContent(source, tensor, numThreads);
        for (const chunkBytes of writer.write(file, part, chunks)) {
          written += chunkBytes;
          const doneBytes = finishedBytes + Math.round(written * share);
          yield { doneBytes, totalBytes, tensor: name, numKept };
        }
      }
      finishedBytes += bytes;
      yield { doneBytes: finishedBytes, totalBytes, tensor: name, numKept };
    }
  }
  writer.place();
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

function newContent(
  mapped: MappedTensors,
  { source, type, importance }: NewTensor,
  numThreads: number,
): Iterable<Uint8Array> {
  if (type === source.type) return mapped.pieces(source, numThreads);
  requireFloats(source);
  const what = `tensor '${source.name}'`;
  const options = { numThreads, what, ...(importance === undefined ? {} : { importance }) };
  return quantizeRuns(type, mapped.floatRows(source), options);
}

/** Hash of everything that the new bytes depend on. */
function identityOf(
  { paths, fileBytes }: ModelHeader,
  files: readonly NewFile[],
  outlines: readonly { readonly head: Uint8Array }[],
): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const [index, path] of paths.entries()) {
    hash.update(JSON.stringify([resolve(path), fileBytes[index], statSync(path).mtimeMs]));
  }
  for (const { head } of outlines) hash.update(head);
  for (const { path, tensors } of files) {
    hash.update(resolve(path));
    for (const { importance } of tensors) {
      hash.update(importance === undefined ? "-" : new Uint8Array(importance.slice().buffer));
    }
  }
  return hash.digest("hex");
}
