// `tinfer perplexity`: how well a model predicts a text, and how far it is from another.
import { TinferError } from "../core/errors.ts";
import {
  type Divergence,
  type Estimate,
  measurePerplexity,
  type PerplexityResult,
} from "../engine/perplexity.ts";
import { LogitsReader } from "../engine/saved-logits.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { interruptSignal } from "./interrupt.ts";
import { modelFlags, modelOptions, modelPath, modelPositional, namesModel } from "./model-flags.ts";
import { formatTable } from "./table.ts";
import { out, outJson, Progress } from "./terminal.ts";
import { type ChunkedText, chunkFlags, readChunks } from "./text-chunk-flags.ts";

export const perplexity: Command = {
  name: "perplexity",
  summary: "How well a model predicts a text; KL divergence from another model's predictions.",
  positionals: [
    modelPositional,
    {
      name: "FILE",
      description: "the text, - for standard input; may be left out with --kl-base",
      elsewhere: ["file", "f"],
      required: false,
    },
  ],
  flags: {
    ...modelFlags,
    ...chunkFlags,
    "save-logits": {
      kind: "text",
      placeholder: "FILE",
      description: "keep the predictions for --kl-base, 2 bytes per token of the vocabulary",
    },
    "kl-base": {
      kind: "text",
      placeholder: "FILE",
      description: "compare with the predictions saved there (also llama-perplexity's)",
    },
    json: { kind: "boolean", description: "the result as JSON", default: false },
  },
  examples: [
    ["tinfer perplexity model.gguf wiki.test.raw", "over the whole text"],
    ["tinfer perplexity f16.gguf wiki.test.raw --chunks 20 --save-logits f16.kld", "a base"],
    ["tinfer perplexity q4.gguf --kl-base f16.kld", "what quantisation changed"],
  ],
  run: async (values) => perplexityCommand(values),
};

function perplexityCommand(values: FlagValues): void {
  const [first, second] = values.positionals;
  const basePath = values.text("kl-base");
  // One argument is the text of the built-in model, or with a base's text the model.
  const isModel = second !== undefined || basePath !== undefined;
  const textPath = isModel ? second : first;
  if (textPath === undefined && basePath === undefined) {
    throw new TinferError("usage", "FILE is missing", { hint: "give a text file" });
  }
  if (!isModel && namesModel(textPath!)) {
    throw new TinferError("usage", `FILE is missing: ${textPath} is a model`, {
      hint: `tinfer perplexity ${textPath} text.txt`,
    });
  }
  const path = modelPath(isModel ? first : undefined);
  using base = basePath === undefined ? undefined : new LogitsReader(basePath);
  const given = readChunks(values, path, textPath);
  const text = base === undefined ? given : ofBase(base, given, values, textPath);
  const options = { ...text, base, saveTo: values.text("save-logits") };
  using interrupt = interruptSignal();
  const progress = new Progress("perplexity");
  // Its end, however it comes, closes the file of saved logits.
  using steps = measurePerplexity(path, modelOptions(values), text.tokenIds, options);
  let step = steps.next();
  for (; !step.done; step = steps.next()) {
    interrupt.throwIfRaised();
    if (step.value === undefined) continue;
    const { numChunksDone, numChunks, perplexity } = step.value;
    progress.update(numChunksDone, numChunks, perplexity.toFixed(4));
  }
  progress.done();
  if (values.boolean("json")) outJson(step.value);
  else report(step.value);
}

/** The base's own tokens and chunks; a text that is given too must be the same. */
function ofBase(
  { header }: LogitsReader,
  given: ChunkedText,
  values: FlagValues,
  textPath: string | undefined,
): ChunkedText {
  const { chunkLen, tokenIds } = header;
  if (values.number("ctx") !== undefined && values.number("ctx") !== chunkLen) {
    throw new TinferError("usage", `the saved logits are of chunks of ${chunkLen} tokens`, {
      hint: "leave --ctx out",
    });
  }
  const isSame = () => tokenIds.every((id, index) => given.tokenIds[index] === id);
  if (textPath !== undefined && !isSame()) {
    throw new TinferError("usage", `the saved logits are of another text than ${textPath}`, {
      hint: "leave FILE out: the saved logits know their text",
    });
  }
  return { ...given, chunkLen, tokenIds };
}

const plusMinus = ({ value, error }: Estimate, digits: number) =>
  `${value.toFixed(digits)} ± ${error.toFixed(digits)}`;
const percent = (share: number) => `${(100 * share).toFixed(2)} %`;

function report({ perplexity, chunkLen, numChunks, numScored, divergence }: PerplexityResult) {
  const counts = `${numScored} tokens in ${numChunks} chunks of ${chunkLen}`;
  out(`perplexity ${plusMinus(perplexity, 4)} (${counts})`);
  if (divergence !== undefined) for (const line of divergenceLines(divergence)) out(line);
}

function divergenceLines(d: Divergence): string[] {
  return formatTable([
    ["base's perplexity", plusMinus(d.basePerplexity, 4)],
    ["ratio to the base", plusMinus(d.perplexityRatio, 5)],
    ["KL divergence, mean", plusMinus(d.mean, 6)],
    ["  median", d.median.toFixed(6)],
    ["  99 %", d.percentile99.toFixed(6)],
    ["  99.9 %", d.percentile999.toFixed(6)],
    ["  largest", d.max.toFixed(6)],
    ["same best token", percent(d.topAgreement)],
    ["difference in probability", percent(d.rmsProbabilityDifference)],
  ]);
}
