// `tinfer embed`: texts to vectors, pooled from the final hidden states.
import { TinferError } from "../core/errors.ts";
import { openModelText } from "../engine/model-text.ts";
import { normalizeRows, poolingOf, poolings, type VectorPooling } from "../engine/pooling.ts";
import { embedTexts } from "../engine/text-embedding.ts";
import { readModelConfig } from "../models/model-config.ts";
import { withRopeOptions } from "../models/rope-options.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { interruptSignal } from "./interrupt.ts";
import { modelFlags, modelOptions, modelPath, requiredModel } from "./model-flags.ts";
import { openEngine } from "./open-engine.ts";
import { outJson } from "./terminal.ts";
import { readStdin } from "./text-input.ts";

export const embed: Command = {
  name: "embed",
  summary: "Embedding vectors of texts; one text per line of stdin when none is given.",
  positionals: [
    requiredModel,
    { name: "TEXT", description: "each one becomes a vector", required: false, rest: true },
  ],
  flags: {
    ...modelFlags,
    pooling: {
      kind: "text",
      choices: poolings,
      description:
        "which tokens' states make the vector; none: one vector per token; " +
        "default: as the model says, mean where it says nothing",
    },
    normalize: {
      kind: "boolean",
      description: "scale vectors to length 1; --no-normalize leaves them as they are",
      default: true,
    },
    json: {
      kind: "boolean",
      description: "one JSON document {embeddings, promptTokens} instead of one array per line",
      default: false,
    },
  },
  examples: [
    ["tinfer embed model.gguf 'a text' 'another text' --json", "two vectors, fixed form"],
    ["tinfer embed model.gguf --pooling last < lines.txt", "one JSON array per line"],
    ["tinfer embed bge-small.gguf 'a query'", "an encoder pools as its file says"],
  ],
  run: embedCommand,
};

async function readTexts(values: FlagValues): Promise<readonly string[]> {
  const texts = values.positionals.slice(1);
  if (texts.length > 0) return texts;
  if (!process.stdin.isTTY) {
    const text = await readStdin();
    // Every line has its vector, an empty one too: line numbers stay what they are.
    if (text !== "") return text.replace(/\r?\n$/, "").split(/\r?\n/);
  }
  throw new TinferError("usage", "there is no text", {
    hint: "tinfer embed MODEL 'a text', or pipe lines into it",
  });
}

/** One vector, or without pooling an array of them. */
function toJson(
  vectors: Float32Array,
  width: number,
  pooling: VectorPooling,
): number[] | number[][] {
  if (pooling !== "none") return [...vectors];
  const numRows = vectors.length / width;
  return Array.from({ length: numRows }, (_, row) => [
    ...vectors.subarray(row * width, (row + 1) * width),
  ]);
}

async function embedCommand(values: FlagValues): Promise<void> {
  const path = modelPath(values.positionals[0]);
  const { tokenizer, header } = openModelText(path);
  using interrupt = interruptSignal();
  const texts = await interrupt.race(readTexts(values));
  const prompts = texts.map((text) => tokenizer.encode(text));
  const empty = prompts.findIndex((tokenIds) => tokenIds.length === 0);
  if (empty >= 0) {
    throw new TinferError("usage", `text ${empty + 1} has no tokens, so it has no vector`, {
      hint: "leave empty texts and lines out",
    });
  }
  const options = modelOptions(values);
  // No longer context than these texts need, unless one is asked for.
  const config = withRopeOptions(readModelConfig(header.metadata), options.rope);
  const longest = prompts.reduce((length, ids) => Math.max(length, ids.length), 1);
  const contextLen = options.contextLen ?? Math.min(longest, config.scaledContextLen);
  await using engine = await openEngine(path, { ...options, contextLen }, interrupt.signal);
  const pooling = poolingOf(engine.facts, values.text("pooling") as VectorPooling | undefined);
  const { hiddenSize } = engine.facts;
  const embeddings: (number[] | number[][])[] = [];
  for await (const vectors of embedTexts(engine, prompts, pooling)) {
    const scaled = values.boolean("normalize") ? normalizeRows(vectors, hiddenSize) : vectors;
    embeddings.push(toJson(scaled, hiddenSize, pooling));
    // Between texts a signal gets its turn.
    await new Promise((resolve) => setImmediate(resolve));
    interrupt.throwIfRaised();
  }
  const promptTokens = prompts.reduce((sum, ids) => sum + ids.length, 0);
  if (values.boolean("json")) outJson({ embeddings, promptTokens });
  else for (const embedding of embeddings) outJson(embedding);
}
