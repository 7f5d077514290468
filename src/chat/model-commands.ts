// Commands on the loaded model: /model, /lora, /lazy, /quantize and /stats.
import { existsSync } from "node:fs";
import { TinferError } from "../core/errors.ts";
import { parseAdapters } from "../engine/adapter-choice.ts";
import type { LoadedModelFacts } from "../engine/client.ts";
import type { ExpertUse } from "../engine/expert-use.ts";
import type { LoadMode } from "../engine/options.ts";
import type { Chat, ChatTotals } from "./chat.ts";
import type { ChatCommand } from "./command.ts";
import { sayCost } from "./setting-commands.ts";
import type { ChatTerminal } from "./terminal.ts";

export const modelCommands: readonly ChatCommand[] = [
  {
    name: "model",
    argument: "PATH|NAME",
    summary: "go on with another model; the conversation stays",
    completes: "path",
    run: modelCommand,
  },
  {
    name: "lora",
    argument: "FILE[=SCALE]…|off",
    summary: "go on with these LoRA adapters; the conversation stays",
    completes: "path",
    run: loraCommand,
  },
  {
    name: "lazy",
    argument: "on|off|auto",
    summary: "weights: on: in the mapped file; off: copied into memory; auto: when idle",
    completes: ["on", "off", "auto"],
    run: lazyCommand,
  },
  {
    name: "quantize",
    argument: "TYPE|original",
    summary: "the weights in another type, e.g. q4_0; the conversation stays",
    completes: ["q8_0", "q6_k", "q4_k_m", "q4_0", "original"],
    run: quantizeCommand,
  },
  { name: "stats", summary: "speed, memory and cache of this chat", run: statsCommand },
];

async function modelCommand(chat: Chat, argument: string): Promise<void> {
  const { terminal } = chat;
  if (argument === "") {
    terminal.note(`model is ${chat.model.label} (${chat.model.engine.facts.path})`);
    return;
  }
  const load = (signal: AbortSignal) => chat.host.loadModel(argument, signal);
  const model = await unlessStopped(terminal, load);
  if (model === undefined) return terminal.note(`stopped; the model is still ${chat.model.label}`);
  try {
    // Throws, with the old model still in place, where the new one has no chat template.
    chat.sessionModel(model, chat.session.settings.template);
  } catch (error) {
    await model.engine[Symbol.asyncDispose]();
    throw error;
  }
  await chat.useModel(model);
  terminal.note(`model is ${model.label}`);
  sayCost(chat);
}

async function loraCommand(chat: Chat, argument: string): Promise<void> {
  const { terminal } = chat;
  const { engine } = chat.model;
  if (argument !== "") {
    await engine.setAdapters(parseAdapters(argument === "off" ? [] : adapterTexts(argument)));
  }
  const names = adapterNames(engine.facts);
  terminal.note(names === "" ? "there is no adapter" : `adapters: ${names}`);
  if (argument !== "") sayCost(chat);
}

/** One file whose name has spaces, or several with spaces between. */
function adapterTexts(argument: string): string[] {
  return existsSync(argument.replace(/=[^=]*$/, "")) ? [argument] : argument.split(/\s+/);
}

function adapterNames({ adapters }: LoadedModelFacts): string {
  return adapters.map(({ name, scale }) => (scale === 1 ? name : `${name} × ${scale}`)).join(", ");
}

const loadModes: Readonly<Record<string, LoadMode>> = { on: "lazy", off: "eager", auto: "auto" };

async function lazyCommand({ model, terminal }: Chat, argument: string): Promise<void> {
  const { engine } = model;
  if (argument !== "") {
    const mode = loadModes[argument];
    if (mode === undefined) throw new TinferError("usage", "/lazy takes on, off or auto");
    await engine.setLoadMode(mode);
  }
  const { loadMode, copiedWeightBytes } = await engine.status();
  const words = { lazy: "on", eager: "off", auto: "auto" }[loadMode];
  terminal.note(`lazy is ${words}: ${weightPlace(engine.facts, copiedWeightBytes)}`);
}

async function quantizeCommand(chat: Chat, argument: string): Promise<void> {
  const { terminal } = chat;
  const { engine } = chat.model;
  if (argument !== "") {
    const show = async () => {
      const { weightChange } = await engine.status();
      if (weightChange === undefined || weightChange.totalBytes === 0) return;
      const { doneBytes: done, totalBytes: total } = weightChange;
      terminal.progress({ label: `weights to ${argument}`, done, total, unit: "bytes" });
    };
    const change = async (signal: AbortSignal) => {
      await watched(engine.setWeightType(argument, signal), show);
      return true;
    };
    const isDone = await unlessStopped(terminal, change).finally(() => {
      terminal.progress(undefined);
    });
    if (!isDone) terminal.note("stopped");
  }
  const { mainType, weightBytes } = engine.facts;
  terminal.note(`weights are mostly ${mainType}, ${megabytes(weightBytes)}`);
}

/** What work that Ctrl-C stops comes to; undefined: it was stopped. */
async function unlessStopped<T>(
  terminal: ChatTerminal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  try {
    return await terminal.stoppable(work);
  } catch (error) {
    if (error instanceof TinferError && error.code === "cancelled") return undefined;
    throw error;
  }
}

const watchMs = 100;

/** Awaits `work`, looking at it again and again meanwhile. */
async function watched(work: Promise<void>, look: () => Promise<void>): Promise<void> {
  let isDone = false;
  const finished = work.finally(() => {
    isDone = true;
  });
  // Its error is thrown below, after the last look.
  finished.catch(() => undefined);
  while (!isDone) {
    await Promise.race([finished.catch(() => undefined), Bun.sleep(watchMs)]);
    if (!isDone) await look();
  }
  await finished;
}

function weightPlace(facts: LoadedModelFacts, copiedBytes: number): string {
  const { mappedWeightBytes, derivedWeightBytes } = facts;
  const made = derivedWeightBytes === 0 ? "" : `, ${megabytes(derivedWeightBytes)} made at load`;
  if (copiedBytes === 0) return `${megabytes(mappedWeightBytes)} in the mapped file${made}`;
  return `${megabytes(copiedBytes)} copied into memory, the rest in the mapped file${made}`;
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

async function statsCommand(chat: Chat): Promise<void> {
  const { facts } = chat.model.engine;
  const status = await chat.model.engine.status();
  const rows: readonly (readonly [string, string])[] = [
    ["model", `${chat.model.label}, ${facts.architecture}, ${facts.mainType}`],
    ...adapterRow(facts),
    ["computes on", `${facts.backend} (${facts.cpuVariant}), threads: ${facts.numThreads}`],
    ...answerRows(chat.totals),
    ["weights", weightPlace(facts, status.copiedWeightBytes)],
    ["KV cache", megabytes(facts.kvBytes)],
    ["work memory", megabytes(facts.arenaBytes + facts.scratchBytes + facts.tableBytes)],
    ["KV blocks", `${status.cachedKvBlocks} cached of ${status.kvBlocks}`],
    ...expertRows(await chat.model.engine.expertUse()),
    ["loaded in", `${facts.loadMs.toFixed(0)} ms`],
  ];
  chat.terminal.print(rows.map(([name, value]) => `  ${name.padEnd(14)} ${value}`).join("\n"));
}

function adapterRow(facts: LoadedModelFacts): (readonly [string, string])[] {
  return facts.adapters.length === 0 ? [] : [["adapters", adapterNames(facts)]];
}

/** Experts that took a token, and how even their shares are; the layer that is least so. */
function expertRows(use: ExpertUse | undefined): (readonly [string, string])[] {
  const routed = use?.layers.filter(({ tokens }) => tokens > 0) ?? [];
  if (use === undefined || routed.length === 0) return [];
  const all = routed.flatMap(({ counts }) => counts);
  const numUsed = all.filter((count) => count > 0).length;
  const worst = routed.reduce((a, b) => (b.balance < a.balance ? b : a));
  const place = `least in layer ${worst.layer}: ${worst.balance.toFixed(3)}`;
  return [
    ["experts", `${numUsed} of ${all.length} used in ${routed.length} layers`],
    ["balance", `${use.balance.toFixed(3)} of 1 (entropy over its maximum), ${place}`],
  ];
}

function answerRows(totals: ChatTotals): (readonly [string, string])[] {
  const { numAnswers, promptTokens, cachedTokens, promptMs, completionTokens } = totals;
  if (numAnswers === 0) return [["answers", "none yet"]];
  const rate = (tokens: number, ms: number) =>
    ms > 0 && tokens > 0 ? `, ${((1000 * tokens) / ms).toFixed(1)} tok/s` : "";
  const computed = promptTokens - cachedTokens;
  // The first token of each answer belongs to the prompt's time.
  const speed = rate(completionTokens - numAnswers, totals.generateMs);
  return [
    ["answers", `${numAnswers}, ${completionTokens} tokens${speed}`],
    ["prompts", `${computed} tokens computed${rate(computed, promptMs)}`],
    ["reused", `${cachedTokens} tokens from the prefix cache`],
  ];
}
