// `tinfer imatrix`: measures which columns of the weights matter, for `tinfer quantize --imatrix`.
import { outputFile } from "../core/output-file.ts";
import {
  importanceTensors,
  type MeasuredImportance,
  measureImportance,
} from "../engine/importance-collector.ts";
import type { GgufValue } from "../weights/gguf-types.ts";
import { writeGguf } from "../weights/gguf-writer.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { interruptSignal } from "./interrupt.ts";
import { modelFlags, modelOptions, modelPath } from "./model-flags.ts";
import { out, outJson, Progress, warn } from "./terminal.ts";
import { chunkFlags, readChunks } from "./text-chunk-flags.ts";

export const imatrix: Command = {
  name: "imatrix",
  summary: "Importance matrix of a model over a text, for quantisation to few bits.",
  positionals: [
    {
      name: "MODEL",
      description: "a .gguf file or a stored name",
      required: true,
      elsewhere: ["model", "m"],
    },
    {
      name: "FILE",
      description: "the text, - for standard input",
      required: true,
      elsewhere: ["file", "f"],
    },
  ],
  flags: {
    ...modelFlags,
    ...chunkFlags,
    output: {
      kind: "text",
      placeholder: "FILE",
      short: "o",
      description: "where to write it, in the GGUF form that other tools read too",
      default: "imatrix.gguf",
    },
    json: { kind: "boolean", description: "the result as JSON", default: false },
  },
  examples: [
    ["tinfer imatrix model-f16.gguf text.txt -o imatrix.gguf", "over the whole text"],
    ["tinfer quantize model-f16.gguf small.gguf IQ2_M --imatrix imatrix.gguf", "its use"],
  ],
  run: async (values) => imatrixCommand(values),
};

function imatrixCommand(values: FlagValues): void {
  const [model, textPath] = values.positionals as [string, string];
  const path = modelPath(model);
  const output = values.text("output")!;
  // Before the work: measuring takes minutes to hours.
  const file = outputFile(output);
  const text = readChunks(values, path, textPath);
  using interrupt = interruptSignal();
  const progress = new Progress("importance", (tokens) => `${tokens} tokens`);
  const steps = measureImportance(path, modelOptions(values), text.tokenIds, text);
  let step = steps.next();
  try {
    for (; !step.done; step = steps.next()) {
      interrupt.throwIfRaised();
      progress.update(step.value.doneTokens, step.value.totalTokens);
    }
  } finally {
    progress.done();
  }
  const { entries, numChunks, numTokens } = step.value;
  warnOfIdleExperts(step.value);
  const metadata = metadataOf(textPath, numChunks, text.chunkLen);
  writeGguf(file, { metadata, tensors: importanceTensors(entries) });
  if (values.boolean("json")) outJson({ output, entries: entries.size, numChunks, numTokens });
  else out(`${output}: ${entries.size} matrices over ${numTokens} tokens`);
}

function warnOfIdleExperts({ entries }: MeasuredImportance): void {
  let idle = 0;
  for (const { counts } of entries.values()) idle += counts.filter((count) => count === 0).length;
  if (idle > 0) warn(`${idle} experts' matrices had no token: a longer text would tell more`);
}

function metadataOf(textPath: string, numChunks: number, chunkLen: number): [string, GgufValue][] {
  return [
    ["general.type", { type: "string", value: "imatrix" }],
    ["imatrix.datasets", { type: "array", of: "string", value: [textPath] }],
    ["imatrix.chunk_count", { type: "u32", value: numChunks }],
    ["imatrix.chunk_size", { type: "u32", value: chunkLen }],
  ];
}
