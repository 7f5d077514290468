// Runs a model over a text in chunks of equal length, each a sequence of its own that begins with
// BOS where the model wants one: what perplexity and importance are measured over.
import { TinferError } from "../core/errors.ts";
import { LoadedModel } from "./loaded-model.ts";
import type { ModelOptions } from "./options.ts";
import { StepDriver } from "./step-driver.ts";

/** Rows of logits that are in memory at a time. */
const outputRows = 64;
const tokensPerStep = 512;

/** The text as whole chunks; BOS stands in front of the text as the tokenizer puts it. */
export function countChunks(tokenIds: Int32Array, chunkLen: number, most = Infinity): number {
  const count = Math.min(most, Math.floor(tokenIds.length / chunkLen));
  if (count > 0) return count;
  const text = `the text has ${tokenIds.length} tokens, one chunk takes ${chunkLen}`;
  throw new TinferError("usage", text, { hint: "give more text, or a smaller --ctx" });
}

export class ChunkRunner implements Disposable {
  readonly model: LoadedModel;
  readonly #chunkLen: number;
  readonly #bosId: number | undefined;
  readonly #chunk: Int32Array;
  readonly #driver: StepDriver;

  constructor(
    path: string,
    options: ModelOptions,
    { chunkLen, bosId }: { readonly chunkLen: number; readonly bosId: number | undefined },
  ) {
    const maxTokensPerStep = Math.min(tokensPerStep, chunkLen);
    const maxOutputsPerStep = Math.min(outputRows, maxTokensPerStep);
    const step = { contextLen: chunkLen, maxSequences: 1, maxTokensPerStep, maxOutputsPerStep };
    this.model = new LoadedModel(path, { ...options, ...step }, { outputs: "tokens" });
    this.#chunkLen = chunkLen;
    this.#bosId = bosId;
    this.#chunk = new Int32Array(chunkLen);
    this.#driver = new StepDriver(this.model.session, chunkLen);
  }

  /** Yields after each step: the first position that has logits, and how many have them. */
  *run(
    tokenIds: Int32Array,
    chunk: number,
    firstOutput: number,
  ): Generator<{ first: number; count: number }> {
    const start = chunk * this.#chunkLen;
    this.#chunk.set(tokenIds.subarray(start, start + this.#chunkLen));
    if (this.#bosId !== undefined) this.#chunk[0] = this.#bosId;
    for (let at = 0; at < firstOutput; at += tokensPerStep) {
      const count = Math.min(tokensPerStep, firstOutput - at);
      this.#driver.run(this.#chunk, at, count, "none");
      yield { first: at, count: 0 };
    }
    for (let at = firstOutput; at < this.#chunkLen; at += outputRows) {
      const count = Math.min(outputRows, this.#chunkLen - at);
      this.#driver.run(this.#chunk, at, count, "all");
      yield { first: at, count };
    }
  }

  [Symbol.dispose](): void {
    this.model[Symbol.dispose]();
  }
}
