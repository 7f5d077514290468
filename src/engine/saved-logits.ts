// Log probabilities of a model over a text, saved to compare others with: the format that
// llama-perplexity writes, so files serve both programs. Little endian:
//
//   8 bytes "_logits_" · u32 chunk length · i32 vocabulary · i32 chunks · i32[chunks × length] tokens
//   then for every scored position in order a row of `rowWords` u16:
//     f32 step · f32 least · u16[vocabulary] codes, padded to an even count
//
// A token's log probability is step * code + least; 16 nats below the best all count as `least`.
// Text has tokens that are less likely, so ours end in f32[scored positions], the exact losses.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import { SequentialFile } from "../core/output-file.ts";

const magic = "_logits_";
const headBytes = 20;
const mostNats = 16;

export interface LogitsHeader {
  readonly chunkLen: number;
  readonly vocabSize: number;
  readonly numChunks: number;
  /** [numChunks * chunkLen] */
  readonly tokenIds: Int32Array;
}

/** Scored positions of a chunk: the second half, but for the last, which predicts nothing known. */
export function scoredLen(chunkLen: number): number {
  return chunkLen - 1 - Math.floor(chunkLen / 2);
}

const rowWords = (vocabSize: number) => 2 * Math.ceil(vocabSize / 2) + 4;

/** One position's saved distribution. */
export class SavedRow {
  readonly words: Uint16Array<ArrayBuffer>;
  readonly #range: Float32Array;
  readonly #vocabSize: number;

  constructor(vocabSize: number) {
    this.words = new Uint16Array(rowWords(vocabSize));
    this.#range = new Float32Array(this.words.buffer, 0, 2);
    this.#vocabSize = vocabSize;
  }

  logProbability(tokenId: number): number {
    return this.#range[0]! * this.words[4 + tokenId]! + this.#range[1]!;
  }

  /** `logSum`: log of the sum of exp(logits). */
  set(logits: Float32Array, logSum: number): void {
    let most = Number.NEGATIVE_INFINITY;
    let least = Number.POSITIVE_INFINITY;
    for (const logit of logits) {
      if (logit > most) most = logit;
      if (logit < least) least = logit;
    }
    least = Math.max(least, most - mostNats);
    this.#range[0] = (most - least) / 65535;
    this.#range[1] = least - logSum;
    const perStep = most > least ? 65535 / (most - least) : 0;
    for (let i = 0; i < this.#vocabSize; i++) {
      this.words[4 + i] = Math.max(0, Math.round(perStep * (logits[i]! - least)));
    }
  }
}

export class LogitsWriter implements Disposable {
  readonly #file: SequentialFile;
  readonly #losses: number[] = [];

  constructor(path: string, { chunkLen, vocabSize, numChunks, tokenIds }: LogitsHeader) {
    this.#file = new SequentialFile(path);
    this.#write(new TextEncoder().encode(magic));
    this.#write(Int32Array.of(chunkLen, vocabSize, numChunks));
    this.#write(tokenIds.subarray(0, numChunks * chunkLen));
  }

  #write({ buffer, byteOffset, byteLength }: Uint8Array | Int32Array | Uint16Array): void {
    this.#file.write(new Uint8Array(buffer, byteOffset, byteLength));
  }

  /** `loss`: minus the log probability of the token that came. */
  write(row: SavedRow, loss: number): void {
    this.#write(row.words);
    this.#losses.push(loss);
  }

  /** After the last row. */
  finish(): void {
    const losses = Float32Array.from(this.#losses);
    this.#write(new Uint8Array(losses.buffer));
    this.#file.place();
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

/** Reads the rows in order. */
export class LogitsReader implements Disposable {
  readonly header: LogitsHeader;
  /** Exact losses of the scored positions; undefined in files of other programs. */
  readonly losses: Float32Array | undefined;
  readonly #path: string;
  readonly #file: number;
  #position: number;

  constructor(path: string) {
    this.#path = path;
    try {
      this.#file = openSync(path, "r");
    } catch (cause) {
      const hint = "make it with `tinfer perplexity MODEL FILE --save-logits`";
      throw new TinferError("notFound", `${path} cannot be read`, { hint, cause });
    }
    this.#position = 0;
    try {
      this.header = this.#readHeader();
      this.losses = this.#readLosses();
    } catch (error) {
      closeSync(this.#file);
      throw error;
    }
  }

  #readHeader(): LogitsHeader {
    const head = Buffer.alloc(headBytes);
    this.#read(head);
    const [chunkLen, vocabSize, numChunks] = [8, 12, 16].map((at) => head.readInt32LE(at)) as [
      number,
      number,
      number,
    ];
    const rowBytes = 2 * rowWords(Math.max(0, vocabSize));
    const bytes = headBytes + numChunks * (4 * chunkLen + scoredLen(chunkLen) * rowBytes);
    const isKnown = head.toString("latin1", 0, 8) === magic && chunkLen > 1 && vocabSize > 0;
    if (!isKnown || numChunks < 1 || fstatSync(this.#file).size < bytes) throw this.#damaged();
    const tokenIds = new Int32Array(numChunks * chunkLen);
    this.#read(new Uint8Array(tokenIds.buffer));
    return { chunkLen, vocabSize, numChunks, tokenIds };
  }

  #readLosses(): Float32Array | undefined {
    const { chunkLen, numChunks } = this.header;
    const losses = new Float32Array(numChunks * scoredLen(chunkLen));
    const rows = losses.length * 2 * rowWords(this.header.vocabSize);
    const afterHeader = this.#position;
    if (fstatSync(this.#file).size !== afterHeader + rows + losses.byteLength) return undefined;
    this.#position += rows;
    this.#read(new Uint8Array(losses.buffer));
    this.#position = afterHeader;
    return losses;
  }

  #damaged(): TinferError {
    return new TinferError("invalidFile", `${this.#path} holds no saved logits, or not all`, {
      hint: "make it with `tinfer perplexity MODEL FILE --save-logits`",
    });
  }

  #read(target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const step = readSync(this.#file, target, done, target.length - done, this.#position);
      if (step === 0) throw this.#damaged();
      done += step;
      this.#position += step;
    }
  }

  read(row: SavedRow): void {
    this.#read(new Uint8Array(row.words.buffer));
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}
