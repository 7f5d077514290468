// `tinfer run`: one prompt, one answer, to stdout.
import { TinferError } from "../core/errors.ts";
import type { EngineClient } from "../engine/client.ts";
import type { ExpertUse } from "../engine/expert-use.ts";
import { requireGenerator } from "../engine/model-file.ts";
import { type ModelText, openModelText } from "../engine/model-text.ts";
import { type GenerationEnd, generateText, type TextRequest } from "../engine/text-generation.ts";
import { checkSampling } from "../sampling/parameters.ts";
import { ChatPrompt, type RenderedPrompt } from "../template/chat-prompt.ts";
import { answerWriter, contextFullNotice, summaryLine } from "./answer.ts";
import { builtInEndIds, builtInMaxTokens, builtInPrompt } from "./built-in-model.ts";
import type { Command } from "./command.ts";
import { expertUseText, moeStatsFlag, requireExpertUse } from "./expert-use-output.ts";
import type { FlagValues } from "./flags.ts";
import { type Interrupt, interruptSignal } from "./interrupt.ts";
import { modelFlags, modelOptions, modelPath, modelPositional } from "./model-flags.ts";
import { openEngine } from "./open-engine.ts";
import { maxTokens, samplingFlags, samplingParameters } from "./sampling-flags.ts";
import { templateFlags, templateFor } from "./template-flags.ts";
import { dim, isTerminal, outJson, Progress, say, write } from "./terminal.ts";
import { readStdin } from "./text-input.ts";
import { parseTokenIds } from "./token-ids.ts";

export const run: Command = {
  name: "run",
  summary: "One answer to stdout; piped input is appended to the prompt.",
  positionals: [
    modelPositional,
    {
      name: "PROMPT",
      description: "the question, or with --raw the text to continue",
      elsewhere: ["prompt", "p"],
      required: false,
    },
  ],
  flags: {
    ...modelFlags,
    ...samplingFlags,
    ...templateFlags,
    system: {
      kind: "text",
      placeholder: "TEXT",
      description: "system message",
      elsewhere: ["system-prompt", "sys"],
    },
    raw: {
      kind: "boolean",
      description: "send the prompt as it is, with no chat template",
      default: false,
    },
    "prompt-token-ids": {
      kind: "text",
      placeholder: "1,2,3",
      description: "token ids instead of PROMPT; implies --raw, stdin is not read",
    },
    ...moeStatsFlag,
    json: { kind: "boolean", description: "one JSON document instead of text", default: false },
  },
  examples: [
    ["tinfer run", "a story by the built-in model"],
    ["tinfer run model.gguf 'Why is the sky blue?'", "an answer through the model's chat template"],
    ["git diff | tinfer run model.gguf 'Summarise:'", "the prompt, then what is piped in"],
    ["tinfer run model.gguf 'Once' --raw --temperature 0 --json", "fixed form for scripts"],
  ],
  run: runCommand,
};

/** The prompt's tokens, and how to read the answer. */
interface Prompt {
  readonly tokenIds: Int32Array;
  readonly rendered?: RenderedPrompt;
  /** Text to show before the answer, which continues it. */
  readonly lead?: string;
}

/** After this long without the end of a piped prompt, say what is waited for. */
const patienceMs = 2000;

async function pipedText(): Promise<string> {
  if (process.stdin.isTTY) return "";
  const notice = setTimeout(() => {
    say("reading the prompt from stdin until it ends; give < /dev/null when there is none");
  }, patienceMs);
  try {
    return await readStdin();
  } catch (error) {
    if (error instanceof TinferError) throw error;
    return ""; // No stdin at all.
  } finally {
    clearTimeout(notice);
  }
}

/** Whether the prompt goes through a chat template; refuses flags of one where there is none. */
function usesTemplate(values: FlagValues): boolean {
  const ids = values.text("prompt-token-ids");
  const [model] = values.positionals;
  const isRaw = values.boolean("raw") || ids !== undefined;
  if (!isRaw && (model !== undefined || values.isGiven("template"))) return true;
  // What environment and config file say is for all commands and models.
  const idle = ["system", "template"].find((name) => values.source(name) === "flag");
  if (idle === undefined) return false;
  const why = isRaw
    ? `${ids === undefined ? "--raw" : "--prompt-token-ids"} goes without a chat template`
    : "the built-in model has no chat template";
  throw new TinferError("usage", `--${idle} changes nothing: ${why}`, {
    hint: isRaw ? "give only one of the two" : "add --template NAME, or give a MODEL that has one",
  });
}

async function readPrompt(values: FlagValues, text: ModelText): Promise<Prompt> {
  const [model, words] = values.positionals;
  const templated = usesTemplate(values);
  const ids = values.text("prompt-token-ids");
  if (ids !== undefined) {
    if (words === undefined) return { tokenIds: parseTokenIds(ids) };
    throw new TinferError("usage", "give either PROMPT or --prompt-token-ids", {
      hint: `drop '${words}'`,
    });
  }
  const piped = words === undefined || !process.stdin.isTTY ? await pipedText() : "";
  const joined = [words, piped.replace(/\n$/, "")].filter((part) => part).join("\n");
  const tellsStory = joined === "" && model === undefined;
  const prompt = tellsStory ? builtInPrompt : joined;
  if (prompt === "" && words === undefined) {
    throw new TinferError("usage", "there is no prompt", {
      hint: `tinfer run ${model} 'your question', or pipe a text into it`,
    });
  }
  if (!templated) {
    const tokenIds = text.tokenizer.encode(prompt);
    return tellsStory ? { tokenIds, lead: prompt } : { tokenIds };
  }
  if (!text.chatTemplate && !values.isGiven("template")) {
    throw new TinferError("template", "the model has no chat template", {
      hint: "add --raw to have it continue the text, or give --template NAME or FILE",
    });
  }
  const chat = new ChatPrompt(text.tokenizer, templateFor(values, text));
  const system = values.text("system");
  const messages = [
    ...(system === undefined ? [] : [{ role: "system", content: system }]),
    { role: "user", content: prompt },
  ];
  const rendered = chat.render({ messages });
  return { tokenIds: rendered.tokenIds, rendered };
}

async function runCommand(values: FlagValues): Promise<void> {
  const sampling = samplingParameters(values);
  const builtIn = values.positionals[0] === undefined;
  const isLimited = builtIn && !values.isGiven("max-tokens");
  const tokens = isLimited ? builtInMaxTokens : maxTokens(values);
  const options = modelOptions(values);
  const path = modelPath(values.positionals[0]);
  const text = openModelText(path);
  requireGenerator(text.header);
  using interrupt = interruptSignal();
  const prompt = await interrupt.race(readPrompt(values, text));
  await using engine = await openEngine(path, options, interrupt.signal);
  checkSampling(sampling, engine.facts.vocabSize);
  const statsOf = values.boolean("moe-stats") ? () => requireExpertUse(engine) : undefined;
  await statsOf?.();
  const { specialTokens } = text.tokenizer;
  const endIds = builtIn ? builtInEndIds(specialTokens) : specialTokens.endOfGenerationIds;
  const request: TextRequest = {
    promptTokenIds: prompt.tokenIds,
    maxTokens: tokens,
    sampling,
    stopTokenIds: values.boolean("ignore-eos") ? [] : [...endIds],
    stopStrings: values.list("stop"),
  };
  if (values.boolean("json")) await printJson(engine, text, request, interrupt, statsOf);
  else await printText(engine, text, request, prompt, interrupt);
  if (statsOf !== undefined && !values.boolean("json")) say(expertUseText(await statsOf()));
}

async function printJson(
  engine: EngineClient,
  text: ModelText,
  request: TextRequest,
  interrupt: Interrupt,
  statsOf: (() => Promise<ExpertUse>) | undefined,
): Promise<void> {
  const completionTokenIds: number[] = [];
  let answer = "";
  let end: GenerationEnd | undefined;
  for await (const event of generateText(engine, text.tokenizer, request, interrupt.signal)) {
    if (event.kind === "token") completionTokenIds.push(event.tokenId);
    if (event.kind === "token" || event.kind === "rest") answer += event.text;
    if (event.kind === "end") end = event;
  }
  const { promptTokens, completionTokens, cachedTokens, finishReason, timings } = end!;
  if (end!.contextFull) say(contextFullNotice);
  outJson({
    text: answer,
    promptTokenIds: [...request.promptTokenIds],
    completionTokenIds,
    finishReason,
    usage: {
      promptTokens,
      completionTokens,
      totalTokens: promptTokens + completionTokens,
      cachedTokens,
    },
    timings: { ...timings, loadMs: engine.facts.loadMs },
    ...(statsOf && { expertUse: await statsOf() }),
  });
  interrupt.throwIfRaised();
}

async function printText(
  engine: EngineClient,
  text: ModelText,
  request: TextRequest,
  { rendered, lead }: Prompt,
  interrupt: Interrupt,
): Promise<void> {
  const writer = answerWriter(rendered?.createSplitter(), "dim");
  if (lead !== undefined) write(lead);
  const progress = new Progress("reading the prompt", (tokens) => `${tokens} tokens`);
  let end: GenerationEnd | undefined;
  for await (const event of generateText(engine, text.tokenizer, request, interrupt.signal)) {
    if (event.kind === "prompt") progress.update(event.computedTokens, event.promptTokens);
    else progress.done();
    if (event.kind === "token" || event.kind === "rest") writer.push(event.text);
    if (event.kind === "end") end = event;
  }
  writer.end();
  if (isTerminal()) say(dim(summaryLine(end!, engine.facts), process.stderr));
  else if (end!.contextFull) say(contextFullNotice);
  interrupt.throwIfRaised();
}
