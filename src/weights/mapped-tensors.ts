// The tensors of a model as they are read once from end to end, by runs of rows, for writing them
// in another form: mapped, so that nothing is copied, and dropped from memory piece by piece.
import { TinferError } from "../core/errors.ts";
import { MappedFile, viewMemory } from "../native/memory.ts";
import { dequantizeNative } from "../native/quantizer.ts";
import type { TensorInfo } from "./gguf-header.ts";
import { quote } from "./gguf-values.ts";
import { isInFile, type ModelHeader, type ModelTensor } from "./model-header.ts";
import { quantTypeInfo, rowBytes } from "./quant-types.ts";
import { type FloatRows, floatMatrix, isSourceType } from "./quantize.ts";
import { release } from "./release.ts";
import { derivedContent, floatType } from "./rows.ts";

/** Bytes of one copied piece. */
const pieceBytes = 16 * 2 ** 20;

export class MappedTensors implements Disposable {
  readonly #files: MappedFile[] = [];
  /** What was read last: its pages leave this process with the next read. */
  #last: { readonly file: MappedFile; readonly offset: number; readonly bytes: number } | undefined;

  constructor({ paths }: Pick<ModelHeader, "paths">) {
    using cleanup = new DisposableStack();
    for (const path of paths) this.#files.push(cleanup.use(new MappedFile(path)));
    cleanup.move();
  }

  #view(tensor: TensorInfo, offset: number, bytes: number): Uint8Array<ArrayBuffer> {
    const file = this.#files[tensor.fileIndex]!;
    this.#last?.file.discard(this.#last.offset, this.#last.bytes);
    this.#last = { file, offset: tensor.offset + offset, bytes };
    return new Uint8Array(viewMemory(file.address + tensor.offset + offset, bytes));
  }

  /** The bytes as they are; each piece is good until the next. */
  *pieces(tensor: ModelTensor, numThreads: number): Generator<Uint8Array<ArrayBuffer>> {
    if (!isInFile(tensor)) {
      yield* derivedContent(tensor, numThreads);
      return;
    }
    for (let offset = 0; offset < tensor.bytes; offset += pieceBytes) {
      yield this.#view(tensor, offset, Math.min(pieceBytes, tensor.bytes - offset));
    }
  }

  /** The rows as floats, expanded where they are quantised. */
  floatRows(tensor: ModelTensor): FloatRows {
    if (!isInFile(tensor)) {
      const { cols, numRows, read } = tensor.rows;
      const type = floatType(tensor.name, tensor.rows);
      let content = new Uint8Array(0);
      const matrix = (first: number, count: number) => {
        release(content);
        content = read(first, count);
        return { type, content, cols };
      };
      return { rows: numRows, cols, read: matrix };
    }
    const { type, shape } = tensor;
    const cols = shape.at(-1) ?? 1;
    const rows = shape.slice(0, -1).reduce((product, dimension) => product * dimension, 1);
    const bytesPerRow = rowBytes(type, cols);
    const read = (firstRow: number, count: number) => {
      const content = this.#view(tensor, firstRow * bytesPerRow, count * bytesPerRow);
      if (isSourceType(type)) return { type, content, cols };
      const floats = new Float32Array(count * cols);
      const { ggmlType } = quantTypeInfo(type);
      dequantizeNative(ggmlType, content, floats, `${quote(tensor.name)} cannot be expanded`);
      return floatMatrix(floats, cols);
    };
    return { rows, cols, read };
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.toReversed()) file[Symbol.dispose]();
  }
}

/** Throws for a tensor of integers: it has no rows of floats. */
export function requireFloats({ name, type }: ModelTensor): void {
  if (!/^[if]\d+$/.test(type) || isSourceType(type)) return;
  throw new TinferError("unsupported", `tensor ${quote(name)} is ${type}: it cannot be quantised`, {
    hint: "leave it as it is: no --tensor-type may name it",
  });
}
