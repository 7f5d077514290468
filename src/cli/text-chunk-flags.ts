// What commands that run a model over a text share: the text, its tokens, chunk length and count.
import { TinferError } from "../core/errors.ts";
import { openModelText } from "../engine/model-text.ts";
import { getNumber } from "../weights/metadata.ts";
import type { Flags, FlagValues } from "./flags.ts";
import { readTextFile } from "./text-input.ts";

/** Tokens of a chunk, if the model's context has as many; results of others are for this. */
const usualChunkLen = 512;

export const chunkFlags: Flags = {
  ctx: {
    kind: "number",
    placeholder: "N",
    short: "c",
    description: `tokens of a chunk; default: ${usualChunkLen}, or the model's context if smaller`,
    elsewhere: ["ctx-size"],
  },
  chunks: { kind: "number", placeholder: "N", description: "most chunks; default: all" },
};

export interface ChunkedText {
  readonly tokenIds: Int32Array;
  readonly chunkLen: number;
  readonly numChunks: number | undefined;
  /** Stands at the beginning of each chunk; undefined: the model wants none. */
  readonly bosId: number | undefined;
}

/** `textPath`: undefined when the tokens come from elsewhere. */
export function readChunks(
  values: FlagValues,
  modelPath: string,
  textPath: string | undefined,
): ChunkedText {
  const { tokenizer, header } = openModelText(modelPath);
  const { addsBos, specialTokens } = tokenizer;
  const architecture = header.metadata.get("general.architecture");
  const contextLen = getNumber(header.metadata, `${architecture}.context_length`);
  const chunkLen = values.number("ctx") ?? Math.min(usualChunkLen, contextLen ?? usualChunkLen);
  requireCount("--ctx", chunkLen, 4);
  const numChunks = values.number("chunks");
  if (numChunks !== undefined) requireCount("--chunks", numChunks, 1);
  const text = textPath === undefined ? "" : readText(textPath);
  const tokenIds = tokenizer.encode(text, { parseSpecial: false });
  return { tokenIds, chunkLen, numChunks, bosId: addsBos ? specialTokens.bosId : undefined };
}

function requireCount(flag: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least) return;
  throw new TinferError("usage", `${flag} is ${value}, wanted a whole number from ${least}`);
}

function readText(path: string): string {
  const [file, what] = path === "-" ? [0, "stdin"] : [path, path];
  return readTextFile(file, what, "give a text file, or - for standard input");
}
