// `tinfer logits`: raw logits or hidden states of every token, to compare implementations.
import { TinferError } from "../core/errors.ts";
import { SequentialFile } from "../core/output-file.ts";
import { computeRows, defaultChunkLen } from "../engine/logits.ts";
import { openModelText } from "../engine/model-text.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { interruptSignal } from "./interrupt.ts";
import { modelFlags, modelOptions, modelPath, modelPositional } from "./model-flags.ts";
import { outJson } from "./terminal.ts";
import { parseTokenIds } from "./token-ids.ts";

export const logits: Command = {
  name: "logits",
  summary: "Raw f32 logits of every prompt token, row-major [tokens, vocab].",
  positionals: [modelPositional],
  flags: {
    ...modelFlags,
    "token-ids": {
      kind: "text",
      placeholder: "1,2,3",
      description: "the tokens, exactly as given",
    },
    prompt: { kind: "text", placeholder: "TEXT", description: "text to tokenize instead" },
    output: {
      kind: "text",
      placeholder: "FILE",
      short: "o",
      description: "where to write the floats",
    },
    chunk: {
      kind: "number",
      placeholder: "N",
      description:
        "tokens per step; 1 = token by token; default: " +
        `${defaultChunkLen}, an encoder's whole prompt`,
    },
    hidden: {
      kind: "boolean",
      description: "final hidden states [tokens, hidden size] instead of logits",
      default: false,
    },
  },
  examples: [
    ["tinfer logits model.gguf --token-ids 1,403,407 --output out.f32", "three rows of logits"],
    ["tinfer logits model.gguf --prompt Hello --chunk 1 -o out.f32", "one token per step"],
    ["tinfer logits bert.gguf --prompt Hello --hidden -o out.f32", "an encoder's hidden states"],
  ],
  run: logitsCommand,
};

function readTokenIds(values: FlagValues, path: string): Int32Array {
  const ids = values.text("token-ids");
  const prompt = values.text("prompt");
  if ((ids === undefined) === (prompt === undefined)) {
    throw new TinferError("usage", "give either --token-ids or --prompt");
  }
  return ids !== undefined ? parseTokenIds(ids) : openModelText(path).tokenizer.encode(prompt!);
}

async function logitsCommand(values: FlagValues): Promise<void> {
  const output = values.text("output");
  if (output === undefined) {
    throw new TinferError("usage", "--output is missing", { hint: "give a file, e.g. -o out.f32" });
  }
  const chunkLen = values.number("chunk");
  const isFine = Number.isInteger(chunkLen) && chunkLen! >= 1 && chunkLen! <= 4096;
  if (chunkLen !== undefined && !isFine) {
    throw new TinferError("usage", `--chunk is ${chunkLen}, wanted a whole number from 1 to 4096`);
  }
  const path = modelPath(values.positionals[0]);
  const tokenIds = readTokenIds(values, path);
  using interrupt = interruptSignal();
  const outputs = values.boolean("hidden") ? "hidden" : "tokens";
  using file = new SequentialFile(output);
  let width = 0;
  for (const chunk of computeRows(path, modelOptions(values), tokenIds, outputs, chunkLen)) {
    interrupt.throwIfRaised();
    width = chunk.width;
    const { buffer, byteOffset, byteLength } = chunk.values;
    file.write(new Uint8Array(buffer, byteOffset, byteLength));
  }
  file.place();
  const size = outputs === "hidden" ? { hiddenSize: width } : { vocabSize: width };
  outJson({ output, tokens: tokenIds.length, ...size });
}
