// A chat on disk: JSON with messages (the system message first) and settings. Read with every
// field checked, written whole or not at all, and never over a file that is something else.
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { TinferError } from "../core/errors.ts";
import { outputFile } from "../core/output-file.ts";
import { checkSampling } from "../sampling/parameters.ts";
import type { ChatMessage } from "../template/messages.ts";
import { type ChatSettings, defaultChatSettings } from "./settings.ts";

const format = "tinfer-chat";
const version = 1;

/** A long life of chatting is under 1 MB; more is not a conversation. */
const maxFileBytes = 64 * 1024 * 1024;

export interface SavedChat {
  /** The model's argument; undefined: the built-in model. */
  readonly model: string | undefined;
  /** ISO 8601, UTC. */
  readonly savedAt: string;
  readonly settings: ChatSettings;
  /** Without the system message. */
  readonly messages: readonly ChatMessage[];
}

export function formatSavedChat({ model, savedAt, settings, messages }: SavedChat): string {
  const { sampling, system, ...others } = settings;
  const { logitBias, logprobs: _, ...numbers } = sampling;
  const systemMessage = system === undefined ? [] : [{ role: "system", content: system }];
  const bias = Object.fromEntries([...logitBias].map(([id, value]) => [id, biasText(value)]));
  const document = {
    format,
    version,
    savedAt,
    model: model ?? null,
    settings: { ...numbers, logitBias: bias, ...others },
    messages: [...systemMessage, ...messages],
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

/** JSON has no infinity. */
function biasText(value: number): number | string {
  return Number.isFinite(value) ? value : value < 0 ? "-inf" : "inf";
}

/** `name` is the file's, for messages. */
export function parseSavedChat(text: string, name: string): SavedChat {
  const wrong = (problem: string) =>
    new TinferError("invalidFile", `${name} is not a tinfer chat: ${problem}`, {
      hint: "/load reads what /save wrote",
    });
  const document = parseObject(text);
  if (document?.["format"] !== format) throw wrong("it lacks the mark of one");
  if (document["version"] !== version) {
    throw wrong(`its version is ${document["version"]}, this tinfer reads ${version}`);
  }
  const { model, savedAt, settings, messages } = document;
  if (!isObject(settings)) throw wrong("settings are missing");
  if (!Array.isArray(messages) || !messages.every(isMessage)) {
    throw wrong("a message lacks its role or text");
  }
  const [first] = messages;
  const system = first?.role === "system" ? String(first.content) : undefined;
  return {
    model: typeof model === "string" ? model : undefined,
    savedAt: String(savedAt),
    settings: parseSettings(settings, system, wrong),
    messages: system === undefined ? messages : messages.slice(1),
  };
}

function parseSettings(
  saved: Readonly<Record<string, unknown>>,
  system: string | undefined,
  wrong: (problem: string) => TinferError,
): ChatSettings {
  const { sampling: sampled, ...others } = defaultChatSettings;
  const sampling: Record<string, unknown> = { ...sampled };
  for (const key of Object.keys(sampled)) {
    if (typeof saved[key] === "number") sampling[key] = saved[key];
  }
  if (isObject(saved["logitBias"])) {
    const entries = Object.entries(saved["logitBias"]);
    sampling["logitBias"] = new Map(entries.map(([id, value]) => [Number(id), biasValue(value)]));
  }
  const settings: Record<string, unknown> = { ...others, system };
  const kinds = { maxTokens: "number", template: "string", thinking: "string" } as const;
  for (const [key, kind] of Object.entries(kinds)) {
    if (typeof saved[key] === kind) settings[key] = saved[key];
  }
  for (const key of ["ignoreEos", "showThinking"]) {
    if (typeof saved[key] === "boolean") settings[key] = saved[key];
  }
  if (!["auto", "on", "off"].includes(String(settings["thinking"]))) {
    throw wrong(`thinking is '${settings["thinking"]}'`);
  }
  if (Array.isArray(saved["stop"])) settings["stop"] = saved["stop"].map(String);
  settings["sampling"] = checkSampling(sampling as unknown as ChatSettings["sampling"]);
  return settings as unknown as ChatSettings;
}

function biasValue(value: unknown): number {
  if (value === "-inf") return Number.NEGATIVE_INFINITY;
  return value === "inf" ? Number.POSITIVE_INFINITY : Number(value);
}

function isMessage(value: unknown): value is ChatMessage {
  return (
    isObject(value) && typeof value["role"] === "string" && typeof value["content"] === "string"
  );
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function readSavedChat(path: string): SavedChat {
  return parseSavedChat(readText(path), path);
}

export function readText(path: string): string {
  try {
    const stat = statSync(path);
    if (!stat.isFile()) throw new Error("it is not a file");
    if (stat.size > maxFileBytes) throw new Error(`it has ${stat.size} bytes`);
    return readFileSync(path, "utf8");
  } catch (cause) {
    const missing = (cause as { code?: string }).code === "ENOENT";
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw missing
      ? new TinferError("notFound", `no such file: ${path}`, { cause })
      : new TinferError("unreadable", `${path} cannot be read: ${reason}`, { cause });
  }
}

/**
 * Writes beside the file and renames: after a crash there is the old or the new chat. Returns what
 * the file holds now.
 */
export function writeSavedChat(path: string, chat: SavedChat): string {
  const text = formatSavedChat(chat);
  const target = outputFile(path);
  const draft = `${target}.${process.pid}.tmp`;
  try {
    const file = openSync(draft, "w", 0o600);
    try {
      writeSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(draft, target);
    return text;
  } catch (cause) {
    rmSync(draft, { force: true });
    const reason = cause instanceof Error ? cause.message : String(cause);
    const code = (cause as { code?: string }).code === "ENOSPC" ? "noSpace" : "unreadable";
    throw new TinferError(code, `${path} cannot be written: ${reason}`, {
      hint: "choose another place: /save FILE",
      cause,
    });
  }
}

/** Throws when `path` holds something that is not a chat. */
export function checkOverwrite(path: string): void {
  if (!existsSync(path)) return;
  try {
    readSavedChat(path);
  } catch (cause) {
    throw new TinferError("usage", `${path} exists and is not a tinfer chat: it stays as it is`, {
      hint: "choose another name",
      cause,
    });
  }
}
