// `tinfer chat`: the interactive session, or with piped input one answer per line.
import { existsSync, statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { Autosave, type FoundChat, maxKeptChats, stateFolder } from "../chat/autosave.ts";
import { Chat } from "../chat/chat.ts";
import { takeUp } from "../chat/file-commands.ts";
import { InputHistory } from "../chat/input-history.ts";
import { type ChatHost, type ChatModel, chatPromptOf } from "../chat/model.ts";
import { type ChatSettings, defaultChatSettings } from "../chat/settings.ts";
import { TinferError } from "../core/errors.ts";
import { contextWarning } from "../engine/context-limits.ts";
import { requireGenerator } from "../engine/model-file.ts";
import { openModelText } from "../engine/model-text.ts";
import type { ModelOptions } from "../engine/options.ts";
import { startEngineWorker } from "../engine/worker.ts";
import { builtInEndIds, builtInMaxTokens } from "./built-in-model.ts";
import { greet, LoadingNote } from "./chat-greeting.ts";
import { type LeavingSignal, PipedChat } from "./chat-pipe.ts";
import { TerminalChat } from "./chat-terminal.ts";
import type { Command } from "./command.ts";
import type { FlagValues } from "./flags.ts";
import { modelFlags, modelOptions, modelPath, modelPositional } from "./model-flags.ts";
import { warnOfLongContext } from "./open-engine.ts";
import { maxTokens, samplingFlags, samplingParameters } from "./sampling-flags.ts";
import { readTemplate, templateFlags } from "./template-flags.ts";
import { OutputClosed } from "./terminal.ts";

export const chat: Command = {
  name: "chat",
  summary: "Interactive session; with piped input one answer per line.",
  positionals: [modelPositional],
  flags: {
    ...modelFlags,
    ...samplingFlags,
    ...templateFlags,
    system: { kind: "text", placeholder: "TEXT", description: "system message" },
    resume: { kind: "boolean", description: "take the last chat up again", default: false },
    history: {
      kind: "boolean",
      description:
        "--no-history: keep neither the chat nor what is typed on disk; else the last " +
        `${maxKeptChats} chats are kept, those of a pipe only with --resume`,
      default: true,
    },
  },
  examples: [
    ["tinfer chat", "make up stories with the built-in model"],
    ["tinfer chat model.gguf", "talk to a model; /help lists the commands"],
    ["tinfer chat model.gguf --system 'Answer in French.' --temperature 0.3", "with settings"],
    ["tinfer chat --resume", "go on where you left the last chat"],
    ["tinfer chat model.gguf < questions.txt", "one answer per line of a file"],
  ],
  run: chatCommand,
};

/** The settings of the flags; with a resumed chat, its own but for the flags on the line. */
function chatSettings(values: FlagValues, resumed: ChatSettings | undefined): ChatSettings {
  const limit = maxTokens(values);
  const given: ChatSettings = {
    ...defaultChatSettings,
    sampling: samplingParameters(values),
    maxTokens: limit === Number.MAX_SAFE_INTEGER ? undefined : limit,
    stop: values.list("stop"),
    ignoreEos: values.boolean("ignore-eos"),
    system: values.text("system"),
    showThinking: process.stdin.isTTY && process.stdout.isTTY,
    template: values.text("template"),
  };
  if (resumed === undefined) return given;
  const isOnLine = (field: string) => {
    const flag = field.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    return chat.flags[flag] !== undefined && values.source(flag) === "flag";
  };
  const pick = <T extends object>(from: T) =>
    Object.fromEntries(Object.entries(from).filter(([field]) => isOnLine(field))) as Partial<T>;
  const sampling = { ...resumed.sampling, ...pick(given.sampling) };
  return { ...resumed, ...pick(given), sampling };
}

/** Loads the text side here while the engine's thread loads the weights. */
async function loadModel(
  argument: string | undefined,
  options: ModelOptions,
  check: (model: Pick<ChatModel, "text" | "fallbackTemplate">) => void,
): Promise<ChatModel> {
  const isBuiltIn = argument === undefined;
  const path = modelPath(argument);
  const starting = startEngineWorker(path, options);
  try {
    const text = openModelText(path);
    requireGenerator(text.header);
    const fallbackTemplate = isBuiltIn ? "plain" : undefined;
    check({ text, fallbackTemplate });
    const { specialTokens } = text.tokenizer;
    const engine = await starting;
    const isFile = !isBuiltIn && existsSync(argument) && statSync(argument).isFile();
    return {
      argument: isBuiltIn ? undefined : isFile ? resolve(argument) : argument,
      label: isBuiltIn ? "stories260K" : (engine.facts.name ?? basename(path, ".gguf")),
      engine,
      text,
      fallbackTemplate,
      endIds: isBuiltIn ? builtInEndIds(specialTokens) : [...specialTokens.endOfGenerationIds],
    };
  } catch (error) {
    // The engine may still be loading: it goes as soon as it is there.
    starting.then(
      (engine) => engine[Symbol.asyncDispose](),
      () => {},
    );
    throw error;
  }
}

async function chatCommand(values: FlagValues): Promise<void> {
  const keeps = values.boolean("history");
  const folder = stateFolder(process.env);
  const isInteractive = process.stdin.isTTY === true && process.stdout.isTTY === true;
  // A script's questions are no chat that a person comes back to.
  const autosave = keeps ? new Autosave(folder, { startsFiles: isInteractive }) : undefined;
  const last = (autosave ?? new Autosave(folder)).latest();
  if (values.boolean("resume") && last === undefined) {
    throw new TinferError("notFound", "there is no chat to resume", { hint: "tinfer chat MODEL" });
  }
  const history = () => new InputHistory(keeps ? folder : undefined);
  const terminal = isInteractive ? new TerminalChat(history()) : new PipedChat();
  try {
    await talk(values, terminal, autosave, last);
  } catch (error) {
    if (!(error instanceof OutputClosed)) throw error;
    // A terminal that is no longer there has hung up, signal or not; a pipe's reader may leave.
    if (isInteractive) terminal.leftBy ??= "SIGHUP";
    if (terminal.leftBy === undefined) throw error;
  } finally {
    terminal[Symbol.dispose]();
  }
  if (terminal.leftBy !== undefined) await dieBy(terminal.leftBy);
}

/** Ends as the signal alone would have, so that the caller sees it: 130, 143 or 129. */
async function dieBy(signal: LeavingSignal): Promise<never> {
  process.kill(process.pid, signal);
  for (;;) await Bun.sleep(1000);
}

/** Throws `reason` when the signal comes first; the model goes as soon as it is there. */
async function unlessAborted(
  signal: AbortSignal,
  loading: Promise<ChatModel>,
  reason: Error,
): Promise<ChatModel> {
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = () => reject(reason);
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  try {
    return await Promise.race([loading, promise]);
  } catch (error) {
    loading.then(
      ({ engine }) => engine[Symbol.asyncDispose](),
      () => {},
    );
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

async function talk(
  values: FlagValues,
  terminal: TerminalChat | PipedChat,
  autosave: Autosave | undefined,
  last: FoundChat | undefined,
): Promise<void> {
  const resumed = values.boolean("resume") ? last : undefined;
  const named = values.positionals[0] ?? resumed?.chat.model;
  const settings = chatSettings(values, resumed?.chat.settings);
  const options = modelOptions(values);
  const host: ChatHost = {
    readTemplate,
    async loadModel(argument, signal) {
      using _ = new LoadingNote(terminal.isInteractive);
      // Adapters are for the model that they were given with.
      const loading = loadModel(argument, { ...options, adapters: [] }, () => {});
      const stopped = new TinferError("cancelled", "interrupted");
      const loaded = await unlessAborted(signal, loading, stopped);
      const warning = contextWarning(loaded.engine.facts);
      if (options.contextLen !== undefined && warning !== undefined) terminal.note(warning);
      return loaded;
    },
  };
  using note = new LoadingNote(terminal.isInteractive);
  const check = (model: Pick<ChatModel, "text" | "fallbackTemplate">) =>
    void chatPromptOf(model, settings.template, readTemplate);
  const loading = loadModel(named, options, check);
  const model = await unlessAborted(terminal.leaving, loading, new OutputClosed());
  note[Symbol.dispose]();
  if (options.contextLen !== undefined) warnOfLongContext(model.engine.facts);
  const isBuiltIn = model.argument === undefined;
  const isLimited = isBuiltIn && settings.maxTokens === undefined && resumed === undefined;
  const started = isLimited ? { ...settings, maxTokens: builtInMaxTokens } : settings;
  await using running = new Chat({ terminal, host, model, settings: started, autosave });
  if (terminal.isInteractive) greet(model, last, resumed !== undefined);
  if (resumed !== undefined) {
    takeUp(running, { ...resumed.chat, settings: started });
    autosave?.continueAt(resumed);
  }
  await running.run();
}
